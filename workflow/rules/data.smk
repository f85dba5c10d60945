# Needs: for CINIC-10 the internet or its archive, for ImageNet-1K its two folders or its archives. Makes: the file that
# trainings read, or the frozen list of files. Digits and fractals need nothing. Neither is retried: what the network or a
# folder lacks, it lacks a minute later.


rule cinic10:
    output:
        "{folder}/cinic10.safetensors",
    log:
        "{folder}/fetch.log",
    retries: 0
    localrule: True
    conda:
        "../../envs/lsc.yaml"
    params:
        root=subpath(output[0], parent=True),
    shell:
        "lsc data fetch cinic10 --root {params.root:q} > {log:q} 2>&1"


# The list fixes the class of every image, also where each image is a class of its own: it is made once and never changed.
rule imagenet_index:
    output:
        protected("{folder}/index.parquet"),
    log:
        "{folder}/index.log",
    retries: 0
    localrule: True
    conda:
        "../../envs/lsc.yaml"
    params:
        root=subpath(output[0], parent=True),
    shell:
        "(lsc data check imagenet --root {params.root:q} &&"
        " lsc data index imagenet --root {params.root:q} --out {output:q}) > {log:q} 2>&1"
