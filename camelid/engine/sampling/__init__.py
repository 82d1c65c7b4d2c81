"""From logits to the token that is written: the steps as they are defined, the same choices in C++, and beams."""
