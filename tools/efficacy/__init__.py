"""What the demo's profiles do: by strength, beside the base model and beside a system prompt (`make efficacy`)."""
