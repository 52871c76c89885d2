"""Apparent emotion from a photo of a face: data, training, evaluation, export and serving.

Nothing is imported here, so that `emotion.recognizer` starts without TensorFlow and `emotion.training` without MediaPipe.
"""
