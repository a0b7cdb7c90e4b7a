//! Lines and points of several decoders as inline SVG.

use crate::report::axes::{Area, Plot, Scale, number, path, whole};
use crate::report::markup::escape;

// The drawing's size, in SVG units. On the right is room for the names of the lines.
const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 300.0;
const AREA: Area = Area { left: 58.0, right: 462.0, top: 12.0, bottom: 256.0 };
/// How far apart names are at least.
const LETTER: f64 = 14.0;

/// Something drawn in a decoder's colour.
pub(super) struct Series {
    pub(super) name: String,
    /// Which colour: the place of the decoder in the plan.
    pub(super) color: usize,
    /// Of a line all its points, else one.
    pub(super) points: Vec<(f64, f64)>,
    /// Where the value of a point may lie.
    pub(super) interval: Option<[f64; 2]>,
}

/// What a chart is called, along and up.
pub(super) struct Axes<'a> {
    pub(super) title: &'a str,
    pub(super) along: &'a str,
    pub(super) up: &'a str,
}

/// Colours that are told apart, by the order of the plan; `compare.css` has them.
pub(super) const COLORS: usize = 10;

/// One line a decoder, its name at its end.
pub(super) fn lines(axes: &Axes, series: &[Series]) -> String {
    draw(axes, series, |plot, series| {
        let place = |point: &(f64, f64)| plot.place(*point);
        let mut svg = format!(r#"<path class="line" d="{}"/>"#, path(&series.points, place));
        if series.points.len() <= 20 {
            for point in &series.points {
                let (x, y) = place(point);
                svg += &format!(r#"<circle cx="{x:.1}" cy="{y:.1}" r="3">{}</circle>"#, title(axes, series, *point));
            }
        }
        svg
    })
}

/// One point a decoder, with its interval, its name beside it.
pub(super) fn scatter(axes: &Axes, series: &[Series]) -> String {
    draw(axes, series, |plot, series| {
        let Some(point) = series.points.first() else { return String::new() };
        let (x, y) = plot.place(*point);
        let mut svg = String::new();
        if let Some([low, high]) = series.interval {
            let [low, high] = [low, high].map(|value| plot.place((point.0, value)).1);
            svg += &format!(
                r#"<path class="whisker" d="M{x:.1} {low:.1}V{high:.1}M{a:.1} {low:.1}h8M{a:.1} {high:.1}h8"/>"#,
                a = x - 4.0
            );
        }
        svg + &format!(r#"<circle cx="{x:.1}" cy="{y:.1}" r="5">{}</circle>"#, title(axes, series, *point))
    })
}

/// What a browser shows where the pointer rests.
fn title(axes: &Axes, series: &Series, (x, y): (f64, f64)) -> String {
    format!(
        "<title>{}: {} {} at {} {}</title>",
        escape(&series.name),
        escape(axes.up),
        number(y),
        escape(axes.along),
        whole(x)
    )
}

fn draw(axes: &Axes, series: &[Series], one: impl Fn(&Plot, &Series) -> String) -> String {
    let finite = |series: &Series| {
        let points = series.points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite()).collect();
        Series { name: series.name.clone(), points, ..*series }
    };
    let series: Vec<Series> = series.iter().map(finite).filter(|series| !series.points.is_empty()).collect();
    let heading = escape(axes.title);
    if series.is_empty() {
        return format!(
            "<figure class=\"card curve\"><figcaption><h3>{heading}</h3></figcaption><p class=\"empty\">No values.</p></figure>\n"
        );
    }
    let points = || series.iter().flat_map(|series| &series.points);
    let ends = series.iter().flat_map(|series| series.interval.into_iter().flatten());
    let ups: Vec<f64> = points().map(|point| point.1).chain(ends).collect();
    // Room on both sides, so that a single point does not sit on an axis.
    let along = Scale::linear(points().map(|point| point.0).chain([0.0]), true);
    let plot = Plot { area: AREA, along, up: Scale::fit(ups.iter().copied()) };
    let mut svg = plot.axes(5, &escape(axes.along), HEIGHT - 6.0);
    let mut names: Vec<(f64, f64, &Series)> = Vec::new();
    for series in &series {
        svg += &format!("<g class=\"c{}\">{}</g>", series.color % COLORS, one(&plot, series));
        if let Some(last) = series.points.last() {
            let (x, y) = plot.place(*last);
            names.push((x, y, series));
        }
    }
    svg += &labels(names);
    format!(
        "<figure class=\"card curve\"><figcaption><h3>{heading}</h3></figcaption>\n\
         <svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{heading}; the numbers are in the table\">{svg}</svg></figure>\n"
    )
}

/// Names beside their points, moved apart where they would cover each other, with a thin line to the point.
fn labels(mut names: Vec<(f64, f64, &Series)>) -> String {
    names.sort_by(|a, b| a.1.total_cmp(&b.1));
    let mut places: Vec<f64> = Vec::with_capacity(names.len());
    for (_, y, _) in &names {
        places.push(places.last().map_or(*y, |above| y.max(above + LETTER)));
    }
    // What left the drawing at the bottom is pushed up again.
    let mut floor = AREA.bottom;
    for place in places.iter_mut().rev() {
        *place = place.min(floor);
        floor = *place - LETTER;
    }
    let label = |((x, y, series), place): (&(f64, f64, &Series), &f64)| {
        let (at, name) = (AREA.right + 14.0, escape(&series.name));
        format!(
            r#"<g class="c{}"><path class="lead-line" d="M{:.1} {y:.1}L{:.1} {place:.1}"/><text x="{at:.1}" y="{:.1}">{name}</text></g>"#,
            series.color % COLORS,
            x + 6.0,
            at - 3.0,
            place + 4.0,
        )
    };
    names.iter().zip(&places).map(label).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(name: &str, points: &[(f64, f64)]) -> Series {
        Series { name: name.into(), color: 1, points: points.to_vec(), interval: Some([0.1, 0.9]) }
    }

    #[test]
    fn odd_values_are_drawn_without_odd_numbers() {
        let axes = Axes { title: "<mIoU>", along: "seconds", up: "mIoU" };
        let (nan, inf) = (f64::NAN, f64::INFINITY);
        for points in [&[][..], &[(nan, 1.0)], &[(0.0, 0.0)], &[(1.0, inf), (2.0, 3.0)], &[(5.0, 0.5), (5.0, 0.5)]] {
            for text in [lines(&axes, &[series("a", points)]), scatter(&axes, &[series("a", points)])] {
                assert!(!text.contains("NaN") && !text.contains("inf") && text.contains("&lt;mIoU&gt;"), "{text}");
            }
        }
        assert!(lines(&axes, &[]).contains("No values."));
    }

    #[test]
    fn names_do_not_cover_each_other() {
        let axes = Axes { title: "t", along: "s", up: "mIoU" };
        let many: Vec<Series> = (0..9).map(|i| series(&format!("d{i}"), &[(1.0, 0.5 + f64::from(i) * 1e-3)])).collect();
        let text = scatter(&axes, &many);
        let mut at: Vec<f64> = text
            .split("</g>")
            .filter_map(|part| part.rsplit_once("<text x=\"476.0\" y=\"")?.1.split('"').next()?.parse().ok())
            .collect();
        at.sort_by(f64::total_cmp);
        assert_eq!(at.len(), 9);
        assert!(at.windows(2).all(|pair| pair[1] - pair[0] >= LETTER - 0.11), "{at:?}");
    }
}
