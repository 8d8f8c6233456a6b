"""Reports as one HTML file that needs nothing from elsewhere: styles, script, curves and pictures lie inside.

    elements.py      elements as trees: text and attributes are escaped where they are written
    page.py          the frame of every report, with report.css and report.js; writes the file
    tables.py        tables with captions and scopes, sortable where the browser runs the script
    charts.py        bars in a table's cells, curves on logarithmic axes, as SVG
    confusion.py     confusion matrices as heat maps, and what is most often taken for what
    pictures.py      frames and label maps, inside the file
    comparison.py    the report of `splitmerge compare`

`benchmarks/report.py` makes one of a benchmark's JSON.
"""
