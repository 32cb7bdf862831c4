//! The drawing: a box for each function, all on a ring, so that no line runs behind a box that it is not of; a line for each reference
//! point, and a short one for each at which those outside talk to a function.

use std::f64::consts::{PI, TAU};
use std::fmt::Write;

use super::{Graph, Node};
use crate::Plane;

/// Sizes in pixels.
const BOX: (f64, f64) = (120.0, 54.0);
const MARGIN: f64 = 90.0;
/// Of the ring, for each function on it.
const RADIUS: (f64, f64) = (50.0, 36.0);
/// Fewer would stand too close.
const LEAST_FUNCTIONS: f64 = 6.0;
/// Of the line to the outside, beyond the box.
const STUB: f64 = 60.0;
/// Where on its line a label stands: nearer to who talks first, where lines are apart.
const LABEL_AT: f64 = 0.36;
const LINE_HEIGHT: f64 = 18.0;

/// A function and the middle of its box.
struct Placed<'a> {
    node: &'a Node,
    x: f64,
    y: f64,
}

/// The whole file.
pub(super) fn draw(graph: &Graph) -> String {
    let size = LEAST_FUNCTIONS.max(graph.functions.len() as f64);
    let (radius_x, radius_y) = (RADIUS.0 * size, RADIUS.1 * size);
    let middle = (MARGIN + BOX.0 / 2.0 + radius_x, MARGIN + BOX.1 / 2.0 + radius_y);
    let placed: Vec<Placed<'_>> = (graph.functions.iter().enumerate())
        .map(|(nth, node)| {
            let angle = TAU * nth as f64 / graph.functions.len() as f64 - PI / 2.0;
            Placed {
                node,
                x: middle.0 + radius_x * angle.cos(),
                y: middle.1 + radius_y * angle.sin(),
            }
        })
        .collect();
    let (lines, labels) = links(graph, &placed);
    let captions = captions(graph, 2.0 * middle.1);
    let height = 2.0 * middle.1 + LINE_HEIGHT * captions.lines().count() as f64;
    let boxes: String = placed.iter().map(|p| drawn(p, middle)).collect();
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{:.0}\" height=\"{height:.0}\" font-family=\"sans-serif\" font-size=\"12\" \
         text-anchor=\"middle\">\n{lines}{boxes}{labels}{captions}</svg>\n",
        2.0 * middle.0
    )
}

/// Lines, and their labels, which nothing may cover.
fn links(graph: &Graph, placed: &[Placed<'_>]) -> (String, String) {
    let (mut lines, mut labels) = (String::new(), String::new());
    for link in &graph.links {
        let find = |name: &str| placed.iter().find(|p| p.node.name == name);
        let (Some(from), Some(to)) = (find(&link.from), find(&link.to)) else {
            continue;
        };
        // Names of reference points begin with a capital; what is a protocol alone is drawn faintly.
        let faint = link.label.starts_with(|c: char| c.is_ascii_lowercase());
        let (stroke, fill) = if faint { ("#ccc", "#999") } else { ("#555", "#a00") };
        // Writing to a String does not fail.
        let _ = writeln!(
            lines,
            "<line x1=\"{:.0}\" y1=\"{:.0}\" x2=\"{:.0}\" y2=\"{:.0}\" stroke=\"{stroke}\"/>",
            from.x, from.y, to.x, to.y
        );
        let at = (
            from.x + (to.x - from.x) * LABEL_AT,
            from.y + (to.y - from.y) * LABEL_AT,
        );
        labels += &label(at, fill, &link.label);
    }
    (lines, labels)
}

/// A box with what stands in it, and its lines to the outside.
fn drawn(placed: &Placed<'_>, middle: (f64, f64)) -> String {
    let Placed { node, x, y } = placed;
    let mut svg = String::new();
    if !node.outside.is_empty() {
        let away = (x - middle.0, y - middle.1);
        let length = away.0.hypot(away.1).max(1.0);
        let reach = STUB + if away.0.abs() > away.1.abs() { BOX.0 } else { BOX.1 } / 2.0;
        let end = (x + away.0 / length * reach, y + away.1 / length * reach);
        let _ = writeln!(
            svg,
            "<polyline points=\"{x:.0},{y:.0} {:.0},{:.0}\" stroke=\"#555\" stroke-dasharray=\"4\"/>",
            end.0, end.1
        );
        svg += &label(end, "#a00", &node.outside.join(", "));
    }
    let _ = writeln!(
        svg,
        "<rect x=\"{:.0}\" y=\"{:.0}\" width=\"{}\" height=\"{}\" rx=\"6\" fill=\"#fff\" stroke=\"{}\"/>",
        x - BOX.0 / 2.0,
        y - BOX.1 / 2.0,
        BOX.0,
        BOX.1,
        colour(node.plane)
    );
    let owned = node.subnet.as_ref().map(|subnet| format!("owns {subnet}"));
    let rows = [
        ("font-weight=\"bold\"", node.name.clone()),
        ("fill=\"#555\"", node.role.clone()),
        ("fill=\"#555\"", owned.unwrap_or_default()),
    ];
    for (nth, (style, row)) in rows.iter().enumerate().filter(|(_, (_, row))| !row.is_empty()) {
        let _ = writeln!(
            svg,
            "<text x=\"{x:.0}\" y=\"{:.0}\" {style}>{}</text>",
            y - 9.0 + 16.0 * nth as f64,
            escaped(row)
        );
    }
    svg
}

/// What colours mean, and what is left out.
fn captions(graph: &Graph, top: f64) -> String {
    let mut rows = vec![(
        "#333",
        "boxes: blue signalling, green media, orange data; dashed: those outside of the service".to_owned(),
    )];
    if !graph.leaves_out.is_empty() {
        rows.push(("#a00", format!("left out: {}", graph.leaves_out.join(", "))));
    }
    let row = |(nth, (fill, row)): (usize, &(&str, String))| {
        let y = top + LINE_HEIGHT * nth as f64;
        format!(
            "<text x=\"16\" y=\"{y:.0}\" text-anchor=\"start\" fill=\"{fill}\">{}</text>\n",
            escaped(row)
        )
    };
    rows.iter().enumerate().map(row).collect()
}

fn colour(plane: Plane) -> &'static str {
    match plane {
        Plane::Signalling => "#26c",
        Plane::Media => "#282",
        Plane::Data => "#c60",
    }
}

/// With a white edge, where it stands on lines.
fn label((x, y): (f64, f64), fill: &str, text: &str) -> String {
    format!(
        "<text x=\"{x:.0}\" y=\"{y:.0}\" fill=\"{fill}\" stroke=\"#fff\" stroke-width=\"4\" paint-order=\"stroke\">{}</text>\n",
        escaped(text)
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
