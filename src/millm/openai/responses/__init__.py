"""`/v1/responses`, stateless: another way to ask for a chat's answer and another way to tell it. Nothing is kept."""
