"""Names and defaults of detection's options, without the libraries that detection itself needs."""

WHOLE_TRACK_ENCODERS = ("light_asd", "lr_asd")
CLIP_ENCODERS = ("resnet18_two_streams", "resnet34_two_streams", "resnet50_two_streams")
ENCODERS = (*WHOLE_TRACK_ENCODERS, *CLIP_ENCODERS)
DEFAULT_ENCODER = "light_asd"
CROPS = ("box", "lower_face")  # how faces are cut for whole-track encoders
PRECISIONS = ("auto", "fp32", "bf16")  # of the encoder's products
MIN_TRACK_S = 0.4  # 10 frames at 25 fps, as in published pipelines
MIN_FACE_PX = 24  # median height; smaller ones are enlarged fivefold for the encoder and show it nothing
