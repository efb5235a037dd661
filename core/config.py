"""What the stage scripts work on and how: edit these dictionaries, or give a file of your own with --config.

Plain values only; every '...' is a path to fill in. A key is documented beside it: unit, choices, what is published.
"""

# ---------------------------------------------------------------- Short-Term Encoder (STE)

STE_inputs = {
    "csv_train_full": "...",  # augmented csv of the training split (data/augment_annotations.py)
    "csv_val_full": "...",  # augmented csv of the validation split
    # Of data/, of the published preparation or of TalkNet's and its successors', as they are (docs/preparations.md):
    "audio_dir": "...",  # holds {train,val}/<entity_id>.wav, or others' {train,val}/<video_id>/<entity_id>.wav
    "video_dir": "...",  # holds {train,val}/<video_id>.arrow, or folders of JPEG files
    # Annotated rows that have no crop in such folders: "refuse"; or "leave_out": all is done without them, and every
    # result counts them. Published folders have no crops of SPEAKING_NOT_AUDIBLE rows.
    "rows_without_crops": "refuse",
    "models_out": "...",  # run folders are made here: checkpoints, settings, log
    "features_out": "...",  # STE_forward.py writes {train,val}/<video_id>.arrow here
    "predictions_out": "...",  # STE_postprocessing.py writes {train,val}/STE.csv and gt.csv here
}

STE_optimization_params = {
    # Of clips: resnet18_two_streams (published), resnet34_two_streams, resnet50_two_streams. Of whole tracks: lr_asd,
    # light_asd; their published recipes are configs/lr_asd.py and configs/light_asd.py. Or a callable of your own,
    # called with pretrained and rgb_stack_size: the network of clips.
    "backbone": "resnet18_two_streams",
    # Clips: ImageNet weights through torchvision; False: random; or the path of a torchvision state dict.
    # Whole tracks: the path of the network's own weights to start from; True or False: random.
    "pretrained": True,
    # Adam, AdamW, NAdam, RAdam, Adamax, Adafactor, Adadelta, Adagrad, RMSprop, SGD or ASGD of torch.optim, or a class
    # or callable that takes (parameters, lr).
    "optimizer": "Adam",
    "criterion": "CrossEntropyLoss",  # or MultiMarginLoss of torch.nn; or a callable of logits (n, 2) and labels (n,)
    "learning_rate": 3e-4,
    "weight_decay": 0.0,
    "epochs": 100,
    "step_size": 40,  # epochs between cuts of the learning rate
    "gamma": 0.1,  # factor of a cut
    "threads": 4,  # make batches ahead, in each process; 0 makes each when it is needed
    "precision": "auto",  # "fp32", "bf16", "fp16"; auto: bf16 where a CUDA device has it, else fp32
    "compile": False,  # torch.compile the network
    "seed": 0,
    # Clips only:
    "motion_init": False,  # start the video stream from differences between frames (for random weights)
    "batch_size": 128,  # clips, of all processes together
    "clips_per_entity": 1,  # random clips a track gives in an epoch and in a validation (published: 1)
    "crop_size": 144,  # pixels, side of the network's input
    "crop_scale": (0.5, 1.0),  # side of the random crop box, as a share of the crop's
    "jitter": 0.4,  # strength of brightness, contrast and saturation jitter
    "jitter_per": "frame",  # draw the jitter for each "frame" (published) or once for each "clip"
    "mismatched_sounds": 0,  # pieces of audio from elsewhere given to each clip as not speaking (published: 0)
    "mismatch_weight": 1.0,  # weight of their loss beside the published ones, which have 1
    # Whole tracks only:
    # At most, of all processes together (published: about 2000); longer tracks are cut to it. In fp32 a frame takes
    # 7 MB (LR-ASD) or 10 MB (Light-ASD) of memory.
    "frames_per_batch": 2000,
    "temperature": 1.0,  # divides the logits in the first epoch (published: LR-ASD 1, Light-ASD 1.3)
    "temperature_drop": 0.0,  # subtracted in each further epoch (published: LR-ASD 0, Light-ASD 0.02)
    "video_weight": 0.5,  # weight of the loss of the video alone (published: 0.5)
    "mix_chance": 0.5,  # probability that audio of another video is mixed in (published: 0.5)
    "mix_snr": (-5, 5),  # dB, how much louder the track's own audio is then (published: -5 to 5)
}

STE_forward_params = {
    "backbone": "resnet18_two_streams",
    "weights": "best",  # of the newest run in models_out: "best" or "last"; or the path of a .pth or .model file
    "batch_size": 32,  # clips in the network at once; whole tracks go one by one
    "threads": 1,  # make batches ahead; 0 makes each when it is needed
    "crop_size": 144,  # pixels, as in training (clips only)
    "precision": "fp32",  # or "bf16", faster where the processor has it, or "int8" on x86-64, of published weights
    "feature_type": "float16",  # or "float32"
    "format": "arrow",  # or "csv", the published form
}

STE_postprocessing_params = {
    "median_window": 1,  # rows of an entity; odd, 1 is off
    "head": "av",  # which logits become scores: "av"; "audio" (clips only) or "video" for one stream alone
}

# ---------------------------------------------------------------- Active Speakers in Context (ASC)

ASC_inputs = {
    # Features of the training split (STE_forward.py): a folder, or a pattern of files in it such as "features/*.csv".
    # Of the residual network also a pattern of folders, "folds/*/features/train": each of an encoder that was trained
    # without the videos in it, so that their scores are as sure as those of new videos.
    "features_train_full": "...",
    "features_val_full": "...",
    "models_out": "...",  # run folders are made here
}

ASC_inputs_forward = {
    "features_train_full": "...",
    "features_val_full": "...",
    "csv_train_full": "...",  # augmented csvs, for ASC_prediction_postprocessing.py
    "csv_val_full": "...",
    "logits_out": "...",  # ASC_forward.py writes {train,val}/<video_id>.csv here
    "predictions_out": "...",  # ASC_prediction_postprocessing.py writes {train,val}/ASC.csv and gt.csv here
}

ASC_optimization_params = {
    # "ASC_Net" (published), which takes the three numbers on the command line; or "residual", which does not, and whose
    # recipe is configs/residual_context.py.
    "network": "ASC_Net",
    "pretrained": False,  # the path of the network's own weights to start from; True or False: random
    "optimizer": "Adam",
    "criterion": "CrossEntropyLoss",
    "learning_rate": 3e-6,
    "weight_decay": 0.0,
    "epochs": 15,
    "step_size": 10,
    "gamma": 0.1,
    "batch_size": 64,  # contexts (residual: pieces of shots), of all processes together
    "threads": 0,  # the features are memory-mapped: threads seldom pay
    "precision": "auto",
    "compile": False,
    "seed": 0,
}

ASC_forward_params = {
    "weights": "best",  # of the newest run in models_out: "best" or "last"; or the path of a .pth file
    "batch_size": 1024,  # contexts in the network at once
    "threads": 0,  # without effect, for older configurations: rows are read from the memory map as they are needed
}

ASC_postprocessing_params = {
    "median_window": 1,
}
