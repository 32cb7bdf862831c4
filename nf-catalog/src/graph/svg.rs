//! The drawing: a box for each function, planes below each other, a line for each reference point.

use std::fmt::Write;

use super::{Graph, Node, PLANES};

/// Sizes in pixels.
const BOX: (usize, usize) = (132, 44);
const GAP: (usize, usize) = (60, 76);
const MARGIN: usize = 40;
/// Boxes beside each other.
const COLUMNS: usize = 4;

/// A function and the middle of its box.
struct Placed<'a> {
    node: &'a Node,
    x: usize,
    y: usize,
}

/// The whole file.
pub(super) fn draw(graph: &Graph) -> String {
    let placed = place(graph);
    let right = placed.iter().map(|p| p.x).max().unwrap_or(0) + BOX.0 / 2 + MARGIN;
    let bottom = placed.iter().map(|p| p.y).max().unwrap_or(0) + BOX.1 / 2 + MARGIN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{right}\" height=\"{bottom}\" font-family=\"sans-serif\" font-size=\"12\" text-anchor=\"middle\">\n"
    );
    for link in &graph.links {
        let find = |name: &str| placed.iter().find(|p| p.node.name == name);
        let (Some(from), Some(to)) = (find(&link.from), find(&link.to)) else {
            continue;
        };
        // Names of reference points begin with a capital; everybody asks for names, which is drawn faintly.
        let faint = link.label.starts_with(|c: char| c.is_ascii_lowercase());
        let colour = if faint { "#ccc" } else { "#555" };
        // Writing to a String does not fail.
        let _ = writeln!(
            svg,
            "<line x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\" stroke=\"{colour}\"/>",
            from.x, from.y, to.x, to.y
        );
        if !faint {
            let (x, y) = ((from.x + to.x) / 2, (from.y + to.y) / 2);
            let _ = writeln!(
                svg,
                "<text x=\"{x}\" y=\"{y}\" fill=\"#a00\">{}</text>",
                escaped(&link.label)
            );
        }
    }
    for Placed { node, x, y } in &placed {
        let (left, top) = (x - BOX.0 / 2, y - BOX.1 / 2);
        let _ = writeln!(
            svg,
            "<rect x=\"{left}\" y=\"{top}\" width=\"{}\" height=\"{}\" rx=\"6\" fill=\"#fff\" stroke=\"#333\"/>",
            BOX.0, BOX.1
        );
        let _ = writeln!(
            svg,
            "<text x=\"{x}\" y=\"{}\" font-weight=\"bold\">{}</text>",
            y - 3,
            escaped(&node.name)
        );
        let _ = writeln!(
            svg,
            "<text x=\"{x}\" y=\"{}\" fill=\"#555\">{}</text>",
            y + 14,
            escaped(&node.role)
        );
    }
    svg + "</svg>\n"
}

/// Planes below each other, each in rows.
fn place(graph: &Graph) -> Vec<Placed<'_>> {
    let mut placed = Vec::new();
    let mut row = 0;
    for (plane, _) in PLANES {
        let nodes: Vec<&Node> = graph.functions.iter().filter(|n| n.plane == plane).collect();
        for line in nodes.chunks(COLUMNS) {
            for (column, node) in line.iter().enumerate() {
                placed.push(Placed {
                    node,
                    x: MARGIN + BOX.0 / 2 + column * (BOX.0 + GAP.0),
                    y: MARGIN + BOX.1 / 2 + row * (BOX.1 + GAP.1),
                });
            }
            row += 1;
        }
    }
    placed
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
