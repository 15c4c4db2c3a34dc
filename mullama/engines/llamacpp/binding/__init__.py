"""The only importer of llama_cpp: typed calls, its log as lines, handles that are freed once. It makes no decisions.

llama.cpp's grammar parser is not bound, so that no client's text can reach it.
"""
