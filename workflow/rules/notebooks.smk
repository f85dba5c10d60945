# Needs: the records of the runs that a chapter reads. Makes: its page, figures and tables; then the index of them all.
#
# A rule per chapter, by the chapter's name. The executed notebook is a log: it is kept when a cell fails, with the error.

for _chapter in CHAPTERS:

    rule:
        name:
            _chapter
        input:
            notebook=f"notebooks/{CHAPTERS[_chapter]['notebook']}.ipynb",
            records=records_of(_chapter),
            code=code_of(_chapter),
        output:
            page=report(
                f"{RESULTS}/notebooks/{CHAPTERS[_chapter]['notebook']}.html",
                caption="../report/chapter.rst",
                category=CHAPTERS[_chapter]["title"],
                labels={"kind": "chapter", "name": _chapter},
            ),
            png=[
                report(
                    f"{RESULTS}/figures/{name}.png",
                    caption="../report/figure.rst",
                    category=CHAPTERS[_chapter]["title"],
                    labels={"kind": "figure", "name": name},
                )
                for name in CHAPTERS[_chapter]["figures"]
            ],
            pdf=[
                f"{RESULTS}/figures/{name}.pdf"
                for name in CHAPTERS[_chapter]["figures"]
            ],
            tables=[
                report(
                    f"{RESULTS}/tables/{name}.csv",
                    caption="../report/table.rst",
                    category=CHAPTERS[_chapter]["title"],
                    labels={"kind": "table", "name": name},
                )
                for name in CHAPTERS[_chapter]["tables"]
            ],
        log:
            notebook=f"{RESULTS}/logs/notebooks/{CHAPTERS[_chapter]['notebook']}.ipynb",
            text=f"{RESULTS}/logs/notebooks/{CHAPTERS[_chapter]['notebook']}.log",
        conda:
            "../../envs/lsc.yaml"
        threads: 1
        resources:
            mem_mb=3000,
            runtime=20,
        params:
            study=STUDY.study,
            runs=lambda _: RUNS,
            results=subpath(output.page, ancestor=2),
            captions=CHAPTERS[_chapter]["figures"] | CHAPTERS[_chapter]["tables"],
        shell:
            "papermill {input.notebook:q} {log.notebook:q} -k python3 --cwd . --execution-timeout 900 --no-progress-bar"
            " -p study {params.study:q} -p runs {params.runs:q} -p results {params.results:q} > {log.text:q} 2>&1"
            " && jupyter nbconvert --to html --no-input --output-dir {params.results:q}/notebooks {log.notebook:q}"
            " >> {log.text:q} 2>&1"


rule index:
    input:
        pages=[
            f"{RESULTS}/notebooks/{chapter['notebook']}.html"
            for chapter in CHAPTERS.values()
        ],
        chapters="workflow/chapters.yaml",
    output:
        report(
            f"{RESULTS}/index.html",
            caption="../report/index.rst",
            category="Index",
            labels={"kind": "page", "name": "index"},
        ),
    log:
        f"{RESULTS}/logs/index.log",
    localrule: True
    conda:
        "../../envs/lsc.yaml"
    params:
        study=STUDY.study,
        chapters=list(CHAPTERS),
    script:
        "../scripts/index.py"
