"""`millm` in an answer: the receipt of the steering it got, and the activations that were asked for."""
