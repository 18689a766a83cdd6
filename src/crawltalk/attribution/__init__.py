"""Which training examples made a model say this? All that it learned from, ranked for a text.

`retrieval` finds pages that hold a text, or its words: what it may have been learned from. Gradients say what each page
changed. The lab's `attribution` measures how well either foretells what happens if pages are left out.
"""
