"""Light-ASD as published (Liao et al., CVPR 2023): 94.06 mAP on AVA-ActiveSpeaker's validation split.

    python STE_train.py 11 0 --config configs/light_asd.py --set STE_inputs.csv_train_full=csv/train.csv ...

Or copy this file and add the dictionaries with your paths. The clip length on the command line has no effect.
"""

STE_optimization_params = {
    "backbone": "light_asd",
    "optimizer": "Adam",
    "learning_rate": 1e-3,
    "epochs": 30,
    "step_size": 1,
    "gamma": 0.95,
    "frames_per_batch": 2000,
    "temperature": 1.3,
    "temperature_drop": 0.02,
    "video_weight": 0.5,
    "mix_chance": 0.5,
    "mix_snr": (-5, 5),
}

STE_forward_params = {"backbone": "light_asd"}
