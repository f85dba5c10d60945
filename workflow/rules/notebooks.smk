# Needs: the records of the runs that a chapter reads. Makes: its page, figures and tables; then the front page of them all.
#
# A rule per chapter, by the chapter's name. The executed notebook is a log: it is kept when a cell fails, with the error. Its
# page is made of what it shows (lsc/study/pages), as HTML and as the Markdown that the front page takes its sentences from.

for _chapter in CHAPTERS.values():

    rule:
        name:
            _chapter.name
        input:
            notebook=f"notebooks/{_chapter.file}.ipynb",
            records=records_of(_chapter.name),
            benchmarks=benchmarks(_chapter.name),
            code=code_of(_chapter.name),
        output:
            pages=[
                f"{RESULTS}/notebooks/{_chapter.file}.{ending}"
                for ending in ("html", "md")
            ],
            png=[
                report(
                    f"{RESULTS}/figures/{item.name}.png",
                    caption="../report/figure.rst",
                    category=category_of(_chapter),
                    labels={"": item.label, "shows": in_words(item.caption)},
                )
                for item in _chapter.items
                if item.kind == "figure"
            ],
            pdf=[
                f"{RESULTS}/figures/{item.name}.pdf"
                for item in _chapter.items
                if item.kind == "figure"
            ],
            tables=[
                report(
                    f"{RESULTS}/tables/{item.name}.csv",
                    caption="../report/table.rst",
                    category=category_of(_chapter),
                    labels={"": item.label, "shows": in_words(item.caption)},
                )
                for item in _chapter.items
                if item.kind == "table"
            ],
        log:
            notebook=f"{RESULTS}/logs/notebooks/{_chapter.file}.ipynb",
            text=f"{RESULTS}/logs/notebooks/{_chapter.file}.log",
        conda:
            "../../envs/lsc.yaml"
        threads: 1
        resources:
            mem_mb=3000,
            runtime=growing(20),
        params:
            name=_chapter.name,
            study=PLAN.study,
            runs=lambda _: RUNS,
            results=lambda _: RESULTS,
            # What stands in workflow/chapters.yaml, so that a changed caption makes the page anew.
            contents=str(_chapter),
            order=[chapter.heading for chapter in CHAPTERS.values()],
        message:
            f"Chapter: {_chapter.heading}"
        shell:
            "papermill {input.notebook:q} {log.notebook:q} -k python3 --cwd . --execution-timeout 900 --no-progress-bar"
            " -p study {params.study:q} -p runs {params.runs:q} -p results {params.results:q} > {log.text:q} 2>&1"
            " && python -m lsc.study.pages chapter {params.name:q} --notebook {log.notebook:q} --results {params.results:q}"
            " >> {log.text:q} 2>&1"


rule index:
    input:
        pages=[
            f"{RESULTS}/notebooks/{chapter.file}.md" for chapter in CHAPTERS.values()
        ],
        claims=[f"{RESULTS}/tables/claims.csv"] if "claims" in CHAPTERS else [],
        code=expand("lsc/study/pages/{name}", name=["front.py", "html.py", "style.css"]),
    output:
        f"{RESULTS}/index.html",
    log:
        f"{RESULTS}/logs/index.log",
    localrule: True
    conda:
        "../../envs/lsc.yaml"
    params:
        results=lambda _: RESULTS,
        contents=[str(chapter) for chapter in CHAPTERS.values()],
    message:
        f"Front page: {RESULTS}/index.html"
    shell:
        "python -m lsc.study.pages front --results {params.results:q} > {log:q} 2>&1"


# The pages once more, in a folder by themselves, as which the report takes them: with every link between them.
rule report_pages:
    input:
        index=f"{RESULTS}/index.html",
        pages=[
            f"{RESULTS}/notebooks/{chapter.file}.html" for chapter in CHAPTERS.values()
        ],
        drawn=[
            f"{RESULTS}/{path}"
            for chapter in CHAPTERS.values()
            for path in chapter.files
        ],
    output:
        report(
            directory(f"{RESULTS}/report"),
            htmlindex="index.html",
            caption="../report/index.rst",
            category="All pages",
            labels={
                "": "Pages",
                "shows": "The front page, from which all chapters open.",
            },
        ),
    log:
        f"{RESULTS}/logs/report_pages.log",
    localrule: True
    conda:
        "../../envs/lsc.yaml"
    params:
        results=lambda _: RESULTS,
    message:
        f"Pages for the report: {RESULTS}/report"
    shell:
        "python -m lsc.study.pages gather --results {params.results:q} --out {output:q} {input:q} > {log:q} 2>&1"
