"""LR-ASD as published (Liao et al., IJCV 2025): 94.45 mAP on AVA-ActiveSpeaker's validation split.

    python STE_train.py 11 0 --config configs/lr_asd.py --set STE_inputs.csv_train_full=csv/train.csv ...

Or copy this file and add the dictionaries with your paths. The clip length on the command line has no effect.
"""

STE_optimization_params = {
    "backbone": "lr_asd",
    "optimizer": "AdamW",
    "learning_rate": 1e-3,
    "weight_decay": 0.01,
    "epochs": 40,
    "step_size": 1,
    "gamma": 0.95,
    "frames_per_batch": 2000,
    "temperature": 1.0,
    "temperature_drop": 0.0,
    "video_weight": 0.5,
    "mix_chance": 0.5,
    "mix_snr": (-5, 5),
}

STE_forward_params = {"backbone": "lr_asd"}
