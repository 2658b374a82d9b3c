"""A local, OpenAI-compatible server for Hugging Face models in which you can turn the knobs inside the model."""

__version__ = "0.1.0"
