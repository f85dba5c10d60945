# Needs: the study's cost block. Makes: the records of the measurements.
#
# A measurement must not share the machine: each job takes all the cores that Snakemake has, so that nothing runs beside it.
# They come first, so that no core waits at the end for their chapter. They are made again where what they measure changed:
# what of the code computes something.


rule cost_step:
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
        settings=PLAN.step,
        code=digest_of(PLAN.step_code),
    shell:
        "lsc cost step --study {params.study:q} --digest {params.settings:q} --device {params.device:q}"
        " --output {output:q} > {log:q} 2>&1"


rule cost_decode:
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
        cases=",".join(PLAN.decode["cases"]),
        cosines=",".join(map(str, PLAN.decode["cosines"])),
        top=",".join(map(str, PLAN.decode["top"])),
        settings=PLAN.decode,
        code=digest_of(["lsc.cost.decode"]),
    shell:
        "lsc cost decode --cases {params.cases:q} --system {params.settings[system]:q}"
        " --classes {params.settings[classes]:q} --cosines {params.cosines:q} --batch {params.settings[batch]:q}"
        " --top {params.top:q} --repetitions {params.settings[repetitions]:q} --device {params.device:q}"
        " --output {output:q} > {log:q} 2>&1"


rule cost_hnsw:
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
        cosine=PLAN.decode["cosines"][0],
        settings=PLAN.decode,
        code=digest_of(["lsc.cost.hnsw"]),
    shell:
        "lsc cost hnsw --system {params.settings[system]:q} --classes {params.settings[hnsw_classes]:q}"
        " --cosine {params.cosine:q} --batch {params.settings[batch]:q}"
        " --repetitions {params.settings[repetitions]:q} --output {output:q} > {log:q} 2>&1"
