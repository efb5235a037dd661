"""What `benchmarks/ava_asd.py --tensorflow` runs in an environment with TensorFlow: the published way to train.

    tf/bin/python benchmarks/ava_asd_keras.py published.npz 3 2     # samples, runs, threads

Prints {"input": samples/s, "step": samples/s}, best runs. The input is a tf.data pipeline around Python functions that
read each face from its frame's jpg and its MFCCs from its video's pickle; the step is that of mode s_av in Keras.
"""

import json
import os
import pickle
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
import cv2
import numpy as np
import tensorflow as tf
from tensorflow import keras
from tensorflow.keras import layers

SIDE, FRAMES, COEFFICIENTS, VECTORS = 100, 5, 13, 20
BATCH, READERS = 16, 2
# (kernel, filters, size of the pool behind it)
AUDIO = (((3, 3), 64, 1), ((3, 3), 192, 3), ((3, 3), 384, 1), ((3, 3), 256, 1), ((3, 3), 256, 3), ((5, 4), 512, 1))
VIDEO = (
    ((5, 7, 7), 96, 3),
    ((1, 5, 5), 256, 3),
    ((1, 3, 3), 256, 1),
    ((1, 3, 3), 256, 1),
    ((1, 3, 3), 256, 3),
    ((1, 6, 6), 512, 1),
)


def main(samples: str, runs: int, threads: int) -> None:
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(2)
    batches = iter(training_input(dict(np.load(samples))))
    read = best_rate(lambda: len(next(batches)[0]), runs, seconds=3.0)
    model, inputs, labels = s_av(), *toy_batch()
    step = best_rate(lambda: train(model, inputs, labels), runs, seconds=10.0)
    print(json.dumps({"input": read, "step": step}))


def training_input(samples: dict[str, np.ndarray]) -> tf.data.Dataset:
    """Batches of (MFCCs, faces), without end."""
    folder = str(samples["folder"])

    def load(number: tf.Tensor) -> tuple[np.ndarray, np.ndarray]:
        number = int(number)
        faces = np.empty((FRAMES, SIDE, SIDE, 1), np.float32)
        for position, (frame, box) in enumerate(zip(samples["frames"][number], samples["boxes"][number], strict=True)):
            image = cv2.imread(f"{folder}/{frame}.jpg", cv2.IMREAD_GRAYSCALE)
            height, width = image.shape
            x1, y1, x2, y2 = (box.clip(0, 1) * (width, height, width, height)).astype(int)
            faces[position] = cv2.resize(image[y1:y2, x1:x2], (SIDE, SIDE))[..., None] / 255
        mfccs = pickle.loads(Path(folder, "mfcc.pkl").read_bytes())
        end = samples["ends"][number]
        return mfccs[:, end - VECTORS : end, None].astype(np.float32), faces

    order = np.random.default_rng(0).permutation(len(samples["classes"]))
    numbers = tf.data.Dataset.from_tensor_slices(order).repeat()
    loaded = numbers.map(
        lambda number: tf.py_function(load, [number], [tf.float32, tf.float32]), num_parallel_calls=READERS
    )
    return loaded.batch(BATCH).prefetch(2)


def s_av() -> keras.Model:
    """Mode s_av, compiled as published."""
    mfccs = keras.Input((COEFFICIENTS, VECTORS, 1))
    faces = keras.Input((FRAMES, SIDE, SIDE, 1))
    audio = tower(mfccs, AUDIO, layers.Conv2D, layers.MaxPooling2D)
    video = tower(faces, VIDEO, layers.Conv3D, layers.MaxPooling3D)
    joint = layers.Dropout(0.5)(layers.Concatenate()([audio, video]))
    joint = layers.Dropout(0.5)(layers.Dense(512, activation="relu")(joint))
    outputs = [layers.Dense(2, activation="softmax")(features) for features in (audio, video, joint)]
    model = keras.Model([mfccs, faces], outputs)
    optimiser = keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True)
    model.compile(optimiser, ["categorical_crossentropy"] * 3, loss_weights=[0.4, 0.4, 1.0])
    return model


def tower(maps, numbers, convolution, pooling):
    """Convolutions with their pools, and a dense layer."""
    for kernel, filters, pool in numbers:
        regulariser = keras.regularizers.l2(1e-4)
        maps = convolution(filters, kernel, padding="same", activation="relu", kernel_regularizer=regulariser)(maps)
        if pool > 1:
            maps = pooling((1,) * (len(kernel) - 2) + (pool, pool), padding="same")(maps)
    return layers.Dense(256, activation="relu")(layers.Flatten()(maps))


def train(model: keras.Model, inputs: list[np.ndarray], labels: list[np.ndarray]) -> int:
    """One step; the size of its batch."""
    model.train_on_batch(inputs, labels)
    return BATCH


def toy_batch() -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Inputs and labels of a batch."""
    rng = np.random.default_rng(0)
    mfccs = rng.standard_normal((BATCH, COEFFICIENTS, VECTORS, 1), np.float32)
    faces = rng.random((BATCH, FRAMES, SIDE, SIDE, 1), np.float32)
    return [mfccs, faces], [np.eye(2, dtype=np.float32)[rng.integers(2, size=BATCH)]] * 3


def best_rate(call: Callable[[], int], runs: int, seconds: float) -> float:
    """Samples per second of the best of some runs; a call gives how many it was of."""
    for _ in range(2):  # the first one compiles
        call()
    return max(rate(call, seconds) for _ in range(runs))


def rate(call: Callable[[], int], seconds: float) -> float:
    items, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        items += call()
    return items / (time.perf_counter() - start)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
