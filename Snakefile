# The replication as one workflow. A configuration file says WHAT is run (config/README.md), a profile WHERE:
#
#     snakemake --cores all                        the demo study, on this machine
#     snakemake --cores all --profile slurm        the paper study, as jobs of a SLURM cluster
#     snakemake --cores 1 -f results/demo/figures/low_dim_accuracy.png        one figure again

from snakemake.utils import min_version

min_version("9.19")


if "study" not in config:

    configfile: "config/demo.yaml"


include: "workflow/rules/common.smk"


# With --config records=reference the chapters are made from the records in results/reference/, and nothing is trained.
if not FROM_REFERENCE:

    include: "workflow/rules/data.smk"
    include: "workflow/rules/train.smk"
    include: "workflow/rules/cost.smk"


include: "workflow/rules/notebooks.smk"


rule all:
    default_target: True
    input:
        of_all_records(f"{RESULTS}/index.html", f"{RESULTS}/report"),


rule figures:
    input:
        of_all_records(
            *(
                f"{RESULTS}/figures/{item.name}.png"
                for chapter in CHAPTERS.values()
                for item in chapter.items
                if item.kind == "figure"
            )
        ),
