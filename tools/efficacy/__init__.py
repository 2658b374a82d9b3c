"""What the demo's profiles do, measured: by strength, beside the base model and beside a system prompt (`make efficacy`)."""
