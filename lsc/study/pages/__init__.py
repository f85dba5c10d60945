"""Pages to read: the executed notebook of a chapter as HTML and Markdown, a study's front page, and the checks of both.

Everything works from a file, without the internet and without the records.
"""

CHANGES_NO_RESULT = True
