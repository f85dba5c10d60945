# Needs: the study's cost block. Makes: the records of the measurements.
#
# A measurement must not share the machine: each job takes all the cores that Snakemake has, so that nothing runs beside it.
# They come first, so that no core waits at the end for their chapter.


rule cost_step:
    input:
        code=[
            *expand("lsc/cost/{name}.py", name=["step", "rivals", "timing"]),
            *expand(
                "lsc/{name}.py",
                name=[
                    "centers/centers",
                    "objectives/cosine",
                    "objectives/euclidean",
                    "objectives/orbit_softmax",
                    "objectives/partial_fc",
                    "systems/partition",
                ],
            ),
        ],
    output:
        f"{COST}/step.jsonl",
    log:
        f"{RESULTS}/logs/cost/step.log",
    priority: 1
    conda:
        "../../envs/lsc.yaml"
    threads: all_cores
    resources:
        **COST_RESOURCES,
    params:
        study=STUDY_FILE,
        device=COST_DEVICE,
        settings=STUDY.cost.step.model_dump_json(),
    shell:
        "lsc cost step --study {params.study} --device {params.device} --output {output} > {log} 2>&1"


rule cost_decode:
    input:
        code=[
            *expand("lsc/cost/{name}.py", name=["decode", "timing"]),
            "lsc/centers/centers.py",
            "lsc/systems/search.py",
        ],
    output:
        f"{COST}/decode.jsonl",
    log:
        f"{RESULTS}/logs/cost/decode.log",
    priority: 1
    conda:
        "../../envs/lsc.yaml"
    threads: all_cores
    resources:
        **COST_RESOURCES,
    params:
        device=COST_DEVICE,
        cases=",".join(STUDY.cost.decode.cases),
        cosines=",".join(map(str, STUDY.cost.decode.cosines)),
        top=",".join(map(str, STUDY.cost.decode.top)),
        settings=STUDY.cost.decode.model_dump(),
    shell:
        "lsc cost decode --cases {params.cases} --system {params.settings[system]}"
        " --classes {params.settings[classes]} --cosines {params.cosines} --batch {params.settings[batch]}"
        " --top {params.top} --repetitions {params.settings[repetitions]} --device {params.device}"
        " --output {output} > {log} 2>&1"


rule cost_hnsw:
    input:
        code="lsc/cost/hnsw.py",
    output:
        f"{COST}/hnsw.jsonl",
    log:
        f"{RESULTS}/logs/cost/hnsw.log",
    priority: 1
    conda:
        "../../envs/lsc.yaml"
    threads: all_cores
    resources:
        **(COST_RESOURCES | {"gpu": 0}),
    params:
        cosine=STUDY.cost.decode.cosines[0],
        settings=STUDY.cost.decode.model_dump(),
    shell:
        "lsc cost hnsw --system {params.settings[system]} --classes {params.settings[hnsw_classes]}"
        " --cosine {params.cosine} --batch {params.settings[batch]}"
        " --repetitions {params.settings[repetitions]} --output {output} > {log} 2>&1"
