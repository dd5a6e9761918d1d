"""Drawings of cells."""

import re
import xml.etree.ElementTree as ET

import pytest

from tenfold.layers.cell_gene import Gene
from tenfold.train.report import render_report
from tenfold.train.report.cell_drawing import cell_drawing

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("text", ["752155/1/10", "555525/2/11", "912112/2/00", "333133/0/01"])
def test_a_drawing_shows_every_edge_and_how_nodes_combine(text):
    gene = Gene.parse(text)
    drawing = ET.fromstring(cell_drawing(gene))
    assert len(drawing.findall(f"{SVG}path")) == sum(code != 1 for code in gene.edges)
    words = [one.text or "" for one in drawing.findall(f"{SVG}text")]
    names = {2: "same", 3: "pool", 5: "3x3", 7: "5x5", 9: "7x7"}
    assert sorted(w for w in words if len(w) > 2) == sorted(names[code] for code in gene.edges if code != 1)
    gates = sum(gene.mix[node - 2] and len(gene.inputs(node)) > 1 for node in (2, 3))
    assert words.count("*") == gates
    assert words.count("+") == sum(len(gene.inputs(node)) > 1 for node in (2, 3)) - gates
    assert drawing.find(f"{SVG}title").text.startswith(f"{gene}: expansion {gene.expansion}")


def test_larger_kernels_have_thicker_lines():
    widths = []
    for code in (5, 7, 9):
        found = re.search(r'stroke-width="([\d.]+)"', cell_drawing(Gene.parse(f"{code}12112/2/00")))
        widths.append(float(found[1]))
    assert widths == sorted(set(widths))


def _found():
    row = {"fitness": 0.1, "best": 0.3, "macs": 9e5}
    return {
        "limits": {"macs": 1e6},
        "space": [{"evolved": [{"gene": "555155/1/00", "fitness": 0.31, "trials": 2}]}],
        "always": ["512112/2/00"],
        "trajectory": [{"step": 10, **row}, {"step": 20, **row}],
        "chosen": {"genes": ["752155/1/00", "skip", "512112/2/00"], "probabilities": [0.5, 0.25, None]},
    }


def test_the_report_draws_the_found_cells_and_the_way_there():
    page = render_report({"found": {"autospace": _found()}})
    assert "3 blocks were searched; 1 of them are left out, 1 have evolved cells" in page
    assert "Block 1: 752155/1/00, 50.0 % likely" in page
    assert "Block 3: 512112/2/00<" in page
    assert "Layer 0: 555155/1/00" in page
    assert page.count('class="edge') == 5 + 3 + 5
    assert "Expected MACs" in page
    assert ">+0.310<" in page


def test_a_report_without_cells_has_no_such_section():
    assert "Cells found" not in render_report({})
    broken = {**_found(), "chosen": {"genes": ["what"]}, "trajectory": None, "space": [{}]}
    assert "Block 1: what" in render_report({"found": {"autospace": broken}})
