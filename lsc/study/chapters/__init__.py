"""What the notebooks show, a module per chapter by the chapter's name: its figures, tables and assembled sentences.

Functions that draw return the figure, and take tables of :class:`lsc.study.tables.Records`.
"""
