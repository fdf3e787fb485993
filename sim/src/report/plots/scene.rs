//! A figure as plain shapes in points, and their drawing as SVG and PNG.
//!
//! A figure lays itself out once, in points of a page about as wide as a README; plotters' two backends then draw the
//! same shapes. PNGs have two pixels to a point, because text at one is unreadable. Coordinates are whole numbers in
//! plotters, which shows in the distances of letters; so both are drawn larger than they are shown.

use std::path::Path;
use std::sync::Once;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontStyle, register_font};

use super::super::{ReportError, write_text};

/// A colour, and how much of it covers what is behind.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Paint {
    /// Red, green, blue.
    pub rgb: (u8, u8, u8),
    /// 1 covers, 0 is invisible.
    pub opacity: f64,
}

impl Paint {
    /// An opaque colour.
    pub const fn solid(r: u8, g: u8, b: u8) -> Self {
        Self { rgb: (r, g, b), opacity: 1.0 }
    }

    /// The same colour, see-through.
    pub const fn faded(self, opacity: f64) -> Self {
        Self { rgb: self.rgb, opacity }
    }

    fn plotters(self) -> RGBAColor {
        RGBAColor(self.rgb.0, self.rgb.1, self.rgb.2, self.opacity)
    }
}

/// Where a text's reference point is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    /// At its left end.
    Left,
    /// In its middle.
    Middle,
    /// At its right end.
    Right,
}

/// A line of text; its reference point is at half of its height.
#[derive(Debug, Clone, PartialEq)]
pub struct Label {
    /// Reference point.
    pub at: (f64, f64),
    /// What it says.
    pub text: String,
    /// Font size, points.
    pub size: f64,
    /// Where the reference point is.
    pub anchor: Anchor,
    /// Colour.
    pub paint: Paint,
    /// Whether it is bold.
    pub bold: bool,
    /// Whether it runs upwards.
    pub upwards: bool,
}

/// What a figure is made of.
#[derive(Debug, Clone, PartialEq)]
pub enum Mark {
    /// A filled rectangle: left, top, right, bottom.
    Box([f64; 4], Paint),
    /// A line through points, with its width.
    Line(Vec<(f64, f64)>, Paint, f64),
    /// A filled polygon.
    Area(Vec<(f64, f64)>, Paint),
    /// A filled circle with its radius.
    Dot((f64, f64), f64, Paint),
    /// Text.
    Text(Label),
}

/// A figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Scene {
    /// Points.
    pub width: f64,
    /// Points.
    pub height: f64,
    /// Drawn in this order.
    pub marks: Vec<Mark>,
}

impl Scene {
    /// An empty white page.
    pub fn new(width: f64, height: f64) -> Self {
        Self { width, height, marks: Vec::new() }
    }

    /// Moves every mark down, and the page's end with them.
    pub fn move_down(&mut self, by: f64) {
        self.height += by;
        for mark in &mut self.marks {
            match mark {
                Mark::Box(edges, _) => {
                    edges[1] += by;
                    edges[3] += by;
                }
                Mark::Line(points, ..) | Mark::Area(points, _) => points.iter_mut().for_each(|p| p.1 += by),
                Mark::Dot(at, ..) => at.1 += by,
                Mark::Text(label) => label.at.1 += by,
            }
        }
    }

    /// Adds a filled rectangle from `(left, top)` to `(right, bottom)`.
    pub fn rect(&mut self, left: f64, top: f64, right: f64, bottom: f64, paint: Paint) {
        self.marks.push(Mark::Box([left, top, right, bottom], paint));
    }

    /// Adds a line.
    pub fn line(&mut self, points: &[(f64, f64)], paint: Paint, width: f64) {
        self.marks.push(Mark::Line(points.to_vec(), paint, width));
    }

    /// Adds a straight line in dashes of four points.
    pub fn dashed(&mut self, from: (f64, f64), to: (f64, f64), paint: Paint, width: f64) {
        let (dx, dy) = (to.0 - from.0, to.1 - from.1);
        let length = dx.hypot(dy);
        let dashes = (length / 7.0).ceil() as u32;
        for n in 0..dashes {
            let start = f64::from(n) * 7.0;
            let end = (start + 4.0).min(length);
            let at = |along: f64| (from.0 + dx * along / length, from.1 + dy * along / length);
            self.line(&[at(start), at(end)], paint, width);
        }
    }

    /// Adds text of `size` points at `at`.
    pub fn text(&mut self, at: (f64, f64), text: &str, size: f64, anchor: Anchor, paint: Paint) {
        let label = Label { at, text: text.to_owned(), size, anchor, paint, bold: false, upwards: false };
        self.marks.push(Mark::Text(label));
    }

    /// Adds bold text, from the left.
    pub fn title(&mut self, at: (f64, f64), text: &str, size: f64, paint: Paint) {
        let anchor = Anchor::Left;
        let label = Label { at, text: text.to_owned(), size, anchor, paint, bold: true, upwards: false };
        self.marks.push(Mark::Text(label));
    }

    /// Every text with the rectangle it covers: left, top, right, bottom.
    pub fn text_boxes(&self) -> Vec<(&Label, [f64; 4])> {
        let texts = self.marks.iter().filter_map(|mark| match mark {
            Mark::Text(label) => Some(label),
            _ => None,
        });
        texts.map(|label| (label, label.covers())).collect()
    }

    /// Writes `STEM.svg` and `STEM.png`; returns both paths.
    ///
    /// # Errors
    /// A [`ReportError`] names the file and the cause.
    pub fn save(&self, directory: &Path, stem: &str) -> Result<[std::path::PathBuf; 2], ReportError> {
        let [svg, png] = ["svg", "png"].map(|ending| directory.join(format!("{stem}.{ending}")));
        let drawn = |path: &Path, cause: String| ReportError::Draw { path: path.to_owned(), cause };
        write_text(&svg, &self.svg().map_err(|cause| drawn(&svg, cause))?)?;
        self.png(&png).map_err(|cause| drawn(&png, cause))?;
        Ok([svg, png])
    }

    /// The figure as SVG text.
    fn svg(&self) -> Result<String, String> {
        const FINER: f64 = 8.0;
        let mut text = String::new();
        let size = self.pixels(FINER);
        self.draw(&SVGBackend::with_string(&mut text, size).into_drawing_area(), FINER, 0.0)?;
        let [drawn, shown] =
            [size, self.pixels(1.0)].map(|(width, height)| format!("width=\"{width}\" height=\"{height}\""));
        Ok(text.replacen(&drawn, &shown, 1))
    }

    /// Draws six pixels to a point and averages squares of three by three to one pixel.
    fn png(&self, path: &Path) -> Result<(), String> {
        const SHOWN: f64 = 2.0;
        const AVERAGED: usize = 3;
        // The bitmap backend centres a line of text with the space below its letters, the SVG backend without.
        const LOWER: f64 = 0.1;
        let (width, height) = self.pixels(SHOWN);
        let fine = (width * AVERAGED as u32, height * AVERAGED as u32);
        let mut pixels = vec![0u8; fine.0 as usize * fine.1 as usize * 3];
        let area = BitMapBackend::with_buffer(&mut pixels, fine).into_drawing_area();
        self.draw(&area, SHOWN * AVERAGED as f64, LOWER)?;
        drop(area);
        let small = averaged(&pixels, (width as usize, height as usize), AVERAGED);
        let area = BitMapBackend::new(path, (width, height)).into_drawing_area();
        let image = BitMapElement::with_owned_buffer((0, 0), (width, height), small)
            .ok_or("the averaged picture has another size than its page")?;
        area.draw(&image).and_then(|()| area.present()).map_err(|error| error.to_string())
    }

    fn pixels(&self, scale: f64) -> (u32, u32) {
        ((self.width * scale).ceil() as u32, (self.height * scale).ceil() as u32)
    }

    /// Draws `scale` pixels to a point, texts lower by `lower` of their size.
    fn draw<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, Shift>,
        scale: f64,
        lower: f64,
    ) -> Result<(), String> {
        register_fonts();
        let draw = || {
            area.fill(&WHITE)?;
            for mark in &self.marks {
                mark.draw(area, scale, lower)?;
            }
            area.present()
        };
        draw().map_err(|error: DrawingAreaErrorKind<B::ErrorType>| error.to_string())
    }
}

impl Label {
    fn style(&self, scale: f64) -> TextStyle<'static> {
        let weight = if self.bold { FontStyle::Bold } else { FontStyle::Normal };
        let direction = if self.upwards { FontTransform::Rotate270 } else { FontTransform::None };
        // The backends divide a font's size by 1.24 to get its body height.
        let font =
            FontDesc::new(FontFamily::SansSerif, self.size * 1.24 * scale, weight).transform(direction);
        let across = match self.anchor {
            Anchor::Left => HPos::Left,
            Anchor::Middle => HPos::Center,
            Anchor::Right => HPos::Right,
        };
        font.color(&self.paint.plotters()).pos(Pos::new(across, VPos::Center))
    }

    /// Width of the text, points.
    pub fn width(&self) -> f64 {
        text_width(&self.text, self.size, self.bold)
    }

    fn covers(&self) -> [f64; 4] {
        let (width, half) = (self.width(), self.size / 2.0);
        let before = match self.anchor {
            Anchor::Left => 0.0,
            Anchor::Middle => width / 2.0,
            Anchor::Right => width,
        };
        let (x, y) = self.at;
        if self.upwards {
            [x - half, y - width + before, x + half, y + before]
        } else {
            [x - before, y - half, x - before + width, y + half]
        }
    }
}

/// Width of `text` at `size` points.
pub fn text_width(text: &str, size: f64, bold: bool) -> f64 {
    register_fonts();
    let weight = if bold { FontStyle::Bold } else { FontStyle::Normal };
    // Measured large, because the answer is in whole pixels.
    const FINER: f64 = 16.0;
    let font = FontDesc::new(FontFamily::SansSerif, size * 1.24 * FINER, weight);
    font.box_size(text)
        .map_or(size * 0.6 * text.chars().count() as f64, |(width, _)| f64::from(width) / FINER)
}

impl Mark {
    fn draw<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, Shift>,
        scale: f64,
        lower: f64,
    ) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
        let whole = |v: f64| (v * scale).round() as i32;
        let point = |(x, y): (f64, f64)| (whole(x), whole(y));
        let stroke = |paint: &Paint, width: f64| {
            paint.plotters().stroke_width((width * scale).round().max(1.0) as u32)
        };
        match self {
            Mark::Box([left, top, right, bottom], paint) => area.draw(&Rectangle::new(
                [point((*left, *top)), point((*right, *bottom))],
                paint.plotters().filled(),
            )),
            Mark::Line(points, paint, width) => area.draw(&PathElement::new(
                points.iter().copied().map(point).collect::<Vec<_>>(),
                stroke(paint, *width),
            )),
            Mark::Area(points, paint) => area.draw(&Polygon::new(
                points.iter().copied().map(point).collect::<Vec<_>>(),
                paint.plotters().filled(),
            )),
            Mark::Dot(at, radius, paint) => {
                area.draw(&Circle::new(point(*at), whole(*radius), paint.plotters().filled()))
            }
            Mark::Text(label) => {
                let down = label.size * lower;
                let shift = if label.upwards { (down, 0.0) } else { (0.0, down) };
                let at = point((label.at.0 + shift.0, label.at.1 + shift.1));
                area.draw(&Text::new(label.text.clone(), at, label.style(scale)))
            }
        }
    }
}

/// A picture of `width` by `height` pixels from one that has `by` times as many each way.
fn averaged(fine: &[u8], (width, height): (usize, usize), by: usize) -> Vec<u8> {
    let mut small = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        for x in 0..width {
            for channel in 0..3 {
                let at = |dx: usize, dy: usize| ((y * by + dy) * width * by + x * by + dx) * 3 + channel;
                let sum: usize = (0..by)
                    .flat_map(|dy| (0..by).map(move |dx| at(dx, dy)))
                    .map(|i| usize::from(fine[i]))
                    .sum();
                small.push((sum / (by * by)) as u8);
            }
        }
    }
    small
}

/// Registers the embedded DejaVu fonts, so that figures look the same on machines without any.
fn register_fonts() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for (style, font) in
            [(FontStyle::Normal, dejavu::sans::regular()), (FontStyle::Bold, dejavu::sans::bold())]
        {
            let registered = register_font("sans-serif", style, font);
            assert!(registered.is_ok(), "the embedded font is a valid TrueType font");
        }
    });
}
