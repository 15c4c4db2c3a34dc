"""The only door to llama.cpp: typed calls, its log as lines, handles freed once; nothing here decides.

No client's text can reach llama.cpp's grammar parser: it is not bound.
"""
