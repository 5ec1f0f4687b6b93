"""The report: a static folder that shows what an output holds and why it is so.

    lines        images of one prompt and seed side by side
    plots        where bars and points lie
    thumbnails   small pictures, one at a time
    attention    maps and masks of one image, on request
    provenance   everything about each image, in chunks
    page         the HTML, from templates that escape
    write        all of it into ``report/``

No server, no network: pages are opened from disk, so data comes as scripts and not by ``fetch``.
"""
