# Needs: the study's configuration, the data of a run, its teacher if it has one. Makes: the run's folder.
#
# Checkpoints lie outside of the declared outputs, under work/: a job that fails or is stopped loses nothing, and the same
# command goes on from there. The folder bears the digests of settings and code, so a changed run begins anew.
#
# A run is trained again where its settings, its data or its teacher changed, and for its code when asked for: config/README.md.


rule train:
    input:
        data=data_files,
        teacher=teacher_files,
    output:
        expand(
            f"{RUNS}/{{{{experiment}}}}/{{{{variant}}}}/seed_{{{{seed}}}}/{{name}}",
            name=RUN_FILES,
        ),
    log:
        f"{RESULTS}/logs/train/{{experiment}}/{{variant}}/seed_{{seed}}.log",
    wildcard_constraints:
        seed=r"\d+",
    conda:
        "../../envs/lsc.yaml"
    threads: resource("cpus_per_task")
    resources:
        gpu=resource("gpu"),
        cpus_per_task=resource("cpus_per_task"),
        mem_mb=resource("mem_mb"),
        nodes=resource("nodes"),
        runtime=runtime,
        slurm_extra=slurm_extra,
        # On several nodes the command itself calls srun. SLURM then gives a task to each node, and Snakemake none to itself.
        mpi=on_several_nodes(lambda nodes: "srun"),
        tasks=on_several_nodes(lambda nodes: nodes),
        tasks_per_gpu=on_several_nodes(lambda nodes: 0),
    params:
        settings=lambda wildcards: run_of(wildcards).digest,
        words=training_words,
    # exec, so that a signal to the job's processes ends no shell whose death would end the training. Another text here would
    # have Snakemake train everything again.
    shell:
        "exec lsc train {params.words:q} > {log:q} 2>&1"
