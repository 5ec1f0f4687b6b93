"""What an output says about its methods: means with intervals, paired differences, interference.

Everything is computed from committed rows and stored features; no image is made again.

    results       one value per image out of the rows
    bootstrap     a mean and how far to trust it
    comparison    arms against each other, per LoRA set too
    interference  what each LoRA loses beside each other one
    evaluate      all of it, from an output
    tables        the same as Markdown, CSV and JSON
"""
