"""The demonstration behind `boundflow demo`: how far each method certifies two classifiers of handwritten digits."""
