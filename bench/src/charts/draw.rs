//! Charts as SVG and as PNG: one drawing for both. Any thread; knows axes and lines, and not what they mean.

use std::sync::OnceLock;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontStyle, register_font};

use super::{Axis, Chart};
use crate::Failure;

/// The size of a chart, in points of a page.
const WIDTH: u32 = 960;
const HEIGHT: u32 = 500;
/// The drawing's own pixels in one point: its coordinates are whole numbers.
const FINE: u32 = 4;
/// Pixels of the drawing that become one of a PNG, each way: this smooths its edges.
const SMOOTH: usize = 2;

/// Okabe and Ito's colours, which the colour-blind tell apart; the palest is left out.
const PALETTE: [RGBColor; 7] = [
    RGBColor(0x00, 0x72, 0xB2),
    RGBColor(0xD5, 0x5E, 0x00),
    RGBColor(0x00, 0x9E, 0x73),
    RGBColor(0xCC, 0x79, 0xA7),
    RGBColor(0xE6, 0x9F, 0x00),
    RGBColor(0x56, 0xB4, 0xE9),
    RGBColor(0x7A, 0x52, 0x30),
];
const PAPER: RGBColor = RGBColor(0xFF, 0xFF, 0xFF);
const INK: RGBColor = RGBColor(0x1B, 0x1F, 0x24);
const SOFT: RGBColor = RGBColor(0x59, 0x63, 0x6E);
const GRID: RGBColor = RGBColor(0xE4, 0xE7, 0xEB);

/// What a dark page makes of the colours above.
const DARK: &str = r##"@media (prefers-color-scheme: dark) {
.chart [fill="#FFFFFF"] { fill: #15191e }
.chart [fill="#1B1F24"] { fill: #e8ebee }
.chart [fill="#59636E"] { fill: #a3adb8 }
.chart [stroke="#E4E7EB"] { stroke: #2c333b }
.chart [stroke="#59636E"] { stroke: #6f7a86 }
.chart [stroke="#0072B2"] { stroke: #4aa8e0 }
.chart [stroke="#D55E00"] { stroke: #f08a3c }
.chart [stroke="#009E73"] { stroke: #2cc79b }
.chart [stroke="#7A5230"] { stroke: #c09a78 }
}"##;

/// Text of a PNG is drawn with this; see bench/assets.
static FONT: &[u8] = include_bytes!("../../assets/roboto-latin.ttf");

fn fonts() {
    static ONCE: OnceLock<bool> = OnceLock::new();
    ONCE.get_or_init(|| register_font("sans-serif", FontStyle::Normal, FONT).is_ok());
}

fn failed(chart: &Chart, why: &impl std::fmt::Display) -> Failure {
    Failure(format!("the chart {} cannot be drawn: {why}", chart.slug))
}

/// A chart as an SVG document that follows the reader's light or dark scheme.
///
/// # Errors
/// When it cannot be drawn.
pub fn svg(chart: &Chart) -> Result<String, Failure> {
    fonts();
    let mut text = String::new();
    {
        let size = (WIDTH * FINE, HEIGHT * FINE);
        let root = SVGBackend::with_string(&mut text, size).into_drawing_area();
        draw(&root, chart).map_err(|error| failed(chart, &error))?;
        root.present().map_err(|error| failed(chart, &error))?;
    }
    let (open, rest) = text
        .split_once('>')
        .ok_or_else(|| failed(chart, &"no document"))?;
    let fine = format!("width=\"{}\" height=\"{}\"", WIDTH * FINE, HEIGHT * FINE);
    let shown = format!(
        "class=\"chart\" role=\"img\" aria-label=\"{}\" width=\"{WIDTH}\" height=\"{HEIGHT}\"",
        escaped(&chart.title)
    );
    let open = open.replacen(&fine, &shown, 1);
    let rest = rest.replace(
        "font-family=\"sans-serif\"",
        "font-family=\"system-ui, Roboto, Helvetica, Arial, sans-serif\"",
    );
    Ok(format!("{open}>\n<style>{DARK}</style>{rest}"))
}

/// Text for a page or a document of tags.
pub fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

/// A chart as a PNG, twice as fine as a page's points.
///
/// # Errors
/// When it cannot be drawn.
pub fn png(chart: &Chart) -> Result<Vec<u8>, Failure> {
    fonts();
    let (width, height) = ((WIDTH * FINE) as usize, (HEIGHT * FINE) as usize);
    let mut pixels = vec![0; width * height * 3];
    {
        let size = (WIDTH * FINE, HEIGHT * FINE);
        let root = BitMapBackend::with_buffer(&mut pixels, size).into_drawing_area();
        draw(&root, chart).map_err(|error| failed(chart, &error))?;
        root.present().map_err(|error| failed(chart, &error))?;
    }
    let small = smoothed(&pixels, width, height);
    let mut bytes = Vec::new();
    let mut encoder = ::png::Encoder::new(
        &mut bytes,
        (width / SMOOTH) as u32,
        (height / SMOOTH) as u32,
    );
    encoder.set_color(::png::ColorType::Rgb);
    encoder.set_depth(::png::BitDepth::Eight);
    let mut writer = encoder
        .write_header()
        .map_err(|error| failed(chart, &error))?;
    writer
        .write_image_data(&small)
        .map_err(|error| failed(chart, &error))?;
    writer.finish().map_err(|error| failed(chart, &error))?;
    Ok(bytes)
}

/// Every square of pixels becomes their mean.
fn smoothed(pixels: &[u8], width: usize, height: usize) -> Vec<u8> {
    let (columns, rows) = (width / SMOOTH, height / SMOOTH);
    let mut small = Vec::with_capacity(columns * rows * 3);
    for row in 0..rows {
        for column in 0..columns {
            for channel in 0..3 {
                let mut sum = 0_usize;
                for y in row * SMOOTH..(row + 1) * SMOOTH {
                    for x in column * SMOOTH..(column + 1) * SMOOTH {
                        sum += usize::from(pixels[(y * width + x) * 3 + channel]);
                    }
                }
                small.push((sum / (SMOOTH * SMOOTH)) as u8);
            }
        }
    }
    small
}

/// A length in points.
fn points(length: u32) -> u32 {
    length * FINE
}

fn font(size: u32) -> TextStyle<'static> {
    ("sans-serif", points(size)).into_font().color(&INK)
}

fn color_of(index: usize) -> RGBColor {
    PALETTE[index % PALETTE.len()]
}

fn draw<DB: DrawingBackend>(
    root: &DrawingArea<DB, Shift>,
    chart: &Chart,
) -> Result<(), DrawingAreaErrorKind<DB::ErrorType>> {
    root.fill(&PAPER)?;
    let left = points(24) as i32;
    root.draw(&Text::new(
        chart.title.clone(),
        (left, points(18) as i32),
        font(22),
    ))?;
    let rows = legend(root, chart, left, points(52) as i32)?;
    let (_, area) = root.split_vertically(points(56) + rows * points(22));
    let mut context = ChartBuilder::on(&area)
        .margin_left(points(10))
        .margin_right(points(30))
        .margin_bottom(points(8))
        .margin_top(points(4))
        .x_label_area_size(points(46))
        .y_label_area_size(points(76))
        .build_cartesian_2d(ranged(&chart.x), ranged(&chart.y))?;
    let label = TextStyle {
        color: SOFT.to_backend_color(),
        ..font(14)
    };
    context
        .configure_mesh()
        .bold_line_style(ShapeStyle {
            color: GRID.to_rgba(),
            filled: false,
            stroke_width: points(1),
        })
        .light_line_style(TRANSPARENT)
        .axis_style(ShapeStyle {
            color: SOFT.to_rgba(),
            filled: false,
            stroke_width: points(1),
        })
        .label_style(label.clone())
        .axis_desc_style(label)
        .set_all_tick_mark_size(points(4))
        .x_desc(chart.x.label.clone())
        .y_desc(chart.y.label.clone())
        .x_label_formatter(&|at| text_at(&chart.x, *at))
        .y_label_formatter(&|at| text_at(&chart.y, *at))
        .draw()?;
    for line in &chart.lines {
        let style = ShapeStyle {
            color: color_of(line.color).to_rgba(),
            filled: false,
            stroke_width: FINE * 2,
        };
        if line.dashed {
            context.draw_series(DashedLineSeries::new(
                line.points.iter().copied(),
                points(7),
                points(5),
                style,
            ))?;
        } else {
            context.draw_series(LineSeries::new(line.points.iter().copied(), style))?;
        }
    }
    Ok(())
}

/// An axis in plotters' words: a linear scale with ticks of our own.
struct Scale {
    range: (f64, f64),
    ticks: Vec<f64>,
}

impl Ranged for Scale {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let share = (value - self.range.0) / (self.range.1 - self.range.0);
        limit.0 + (share * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        // The fine grid between the ticks stays empty.
        if hint.weight().allow_light_points() {
            Vec::new()
        } else {
            self.ticks.clone()
        }
    }

    fn range(&self) -> std::ops::Range<f64> {
        self.range.0..self.range.1
    }
}

fn ranged(axis: &Axis) -> Scale {
    Scale {
        range: axis.range,
        ticks: axis.ticks.iter().map(|tick| tick.0).collect(),
    }
}

fn text_at(axis: &Axis, at: f64) -> String {
    axis.ticks
        .iter()
        .find(|tick| (tick.0 - at).abs() < 1e-9)
        .map(|tick| tick.1.clone())
        .unwrap_or_default()
}

/// Names the lines above the plot, so that no line is covered. Tells how many rows that took.
fn legend<DB: DrawingBackend>(
    root: &DrawingArea<DB, Shift>,
    chart: &Chart,
    left: i32,
    top: i32,
) -> Result<u32, DrawingAreaErrorKind<DB::ErrorType>> {
    let style = font(14).pos(Pos::new(HPos::Left, VPos::Center));
    let (swatch, gap, apart) = (points(26) as i32, points(8) as i32, points(22) as i32);
    let right = (points(WIDTH) - points(24)) as i32;
    let (mut x, mut row) = (left, 0);
    for line in &chart.lines {
        let (width, _) = root.estimate_text_size(&line.label, &style)?;
        let length = swatch + gap + width as i32;
        if x > left && x + length > right {
            x = left;
            row += 1;
        }
        let y = top + row * points(22) as i32;
        let stroke = ShapeStyle {
            color: color_of(line.color).to_rgba(),
            filled: false,
            stroke_width: FINE * 2,
        };
        if line.dashed {
            let dash = points(7) as i32;
            for from in [x, x + dash + points(5) as i32] {
                root.draw(&PathElement::new(vec![(from, y), (from + dash, y)], stroke))?;
            }
        } else {
            root.draw(&PathElement::new(vec![(x, y), (x + swatch, y)], stroke))?;
        }
        root.draw(&Text::new(
            line.label.clone(),
            (x + swatch + gap, y),
            style.clone(),
        ))?;
        x += length + apart;
    }
    Ok(row as u32 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report_files::made_up;

    #[test]
    fn a_chart_is_an_svg_document_without_references() {
        for chart in crate::charts::all(&[made_up("a <b>", 1), made_up("c", 4)]).unwrap() {
            let text = svg(&chart).unwrap();
            assert!(text.starts_with("<svg class=\"chart\""), "{}", &text[..80]);
            assert!(text.trim_end().ends_with("</svg>"));
            assert!(text.contains("a &lt;b&gt;"), "texts are escaped");
            assert!(text.contains("99%") || chart.slug.ends_with("over-time"));
            for reference in ["href", "url(", "@import", "<image", "<script"] {
                assert!(!text.contains(reference), "{reference}");
            }
        }
    }

    #[test]
    fn a_png_has_its_size_and_its_colours() {
        let charts = crate::charts::all(&[made_up("one", 1)]).unwrap();
        let bytes = png(&charts[0]).unwrap();
        let decoder = ::png::Decoder::new(std::io::Cursor::new(&bytes));
        let mut reader = decoder.read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!((info.width, info.height), (1920, 1000));
        let blue = pixels
            .chunks(3)
            .filter(|rgb| *rgb == [0x00, 0x72, 0xB2])
            .count();
        assert!(blue > 1000, "the line is there: {blue}");
        let ink = pixels
            .chunks(3)
            .filter(|rgb| *rgb == [0x1B, 0x1F, 0x24])
            .count();
        assert!(ink > 200, "so is the text: {ink}");
    }
}
