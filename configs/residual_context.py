"""The residual context network: it corrects the encoder's score by the face over time and the faces beside it.

python ASC_train.py cpu --config configs/residual_context.py --set ASC_inputs.features_train_full=features/train ...
python ASC_forward.py cpu --set ASC_forward_params.weights=best.pth ...
"""

ASC_optimization_params = {
    "network": "residual",
    "optimizer": "AdamW",
    "learning_rate": 2e-3,
    "weight_decay": 0.01,
    "epochs": 24,
    "step_size": 16,
    "gamma": 0.1,
    "batch_size": 8,
}
