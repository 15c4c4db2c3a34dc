"""How the model behind `builtin:tiny` is made: synthetic text, tokenizer, training, export, evaluation."""
