# Needs: for CINIC-10 the internet or its archive, for ImageNet-1K its two folders. Makes: the file that trainings read, or the
# frozen list of files. Digits and fractals need nothing.


rule cinic10:
    output:
        "{folder}/cinic10.safetensors",
    log:
        "{folder}/fetch.log",
    # What the network or a folder lacks is not there at the next try either, and a fetch goes on where it stopped.
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
    # What the network or a folder lacks is not there at the next try either, and a fetch goes on where it stopped.
    retries: 0
    localrule: True
    conda:
        "../../envs/lsc.yaml"
    params:
        root=subpath(output[0], parent=True),
    shell:
        "(lsc data check imagenet --root {params.root:q} &&"
        " lsc data index imagenet --root {params.root:q} --out {output:q}) > {log:q} 2>&1"
