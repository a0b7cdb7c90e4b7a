//! Pages hold what they are given, whatever it is.

use std::fs;

use super::*;
use crate::eval::summary::ConfusedPair;
use crate::eval::{EvalAccumulator, EvalOptions};

const HOSTILE: &str = "</title><script>alert('1')</script> & \"quoted\" {{style}} \u{202e}";

/// An evaluation in which every part is there and holds the name.
fn found(name: &str, k: usize) -> Evaluation {
    let mut found = EvalAccumulator::new(k, EvalOptions { confidence: true, label_issues: 1 })
        .evaluation(&vec![name.to_owned(); k]);
    found.distance[0].pixels = 5;
    found.distance[0].miou = Some(0.5);
    let pair =
        ConfusedPair { classes: [0, k - 1], names: [name.into(), name.into()], pixels: [3, 1], share_of_errors: 1.0 };
    found.confused = vec![pair];
    if let Some(calibration) = &mut found.calibration {
        calibration.ece = Some(0.1);
        (calibration.bins[14].pixels, calibration.bins[14].accuracy) = (5, Some(0.8));
    }
    found.label_issues = Some(vec![issue(name)]);
    found
}

fn issue(name: &str) -> LabelIssue {
    LabelIssue {
        index: 0,
        image: name.into(),
        label: name.into(),
        prediction: name.into(),
        bounds: [12, 21, 4, 2],
        pixels: 8,
        confidence: 0.9,
        of_label: 0.1,
        score: 6.4,
    }
}

/// One 8 x 6 sample with two stages, `k` classes and the given name everywhere.
fn report(name: &str, k: usize) -> Report {
    let (width, height) = (8, 6);
    let labels = |id| Labels { width, height, ids: vec![id; width * height] };
    let block = |n| TokenBlock { name: format!("{name}{n}"), maps: vec![n as f32; k * 6], height: 2, width: 3 };
    let class = ClassRow { name: name.into(), iou: Some(0.5), pixels: 4, ..ClassRow::default() };
    let sample = SamplePanel {
        name: name.into(),
        image: Image { width, height, pixels: vec![90; width * height * 3] },
        truth: labels(0),
        prediction: labels(0),
        iou: Some(1.0),
        blocks: Vec::new(),
    };
    Report {
        title: name.into(),
        lead: name.into(),
        command: name.into(),
        summary: vec![(name.into(), name.into())],
        headlines: vec![Headline { name: name.into(), value: name.into(), meaning: name.into() }],
        curves: vec![Curve { name: name.into(), unit: name.into(), points: vec![(0.0, 1.0)], ..Curve::default() }],
        classes: vec![class; k],
        confusion: Some(vec![vec![1; k]; k]),
        samples: vec![SamplePanel { blocks: vec![block(0), block(1)], ..sample.clone() }],
        found: Some(found(name, k)),
        worst: vec![sample.clone()],
        label_issues: vec![LabelIssuePanel { issue: issue(name), corner: [10, 20], crop: sample }],
        next_steps: vec![NextStep { command: name.into(), purpose: name.into() }],
    }
}

#[test]
fn hostile_names_stay_text() {
    let page = render(&report(HOSTILE, 3)).unwrap();
    assert_eq!(page.matches("<script>").count(), 1, "only the page's own script");
    assert_eq!(page.matches("<style>").count(), 1);
    assert!(!page.contains("alert('1')") && !page.contains('\u{202e}'));
    let safe =
        "&lt;/title&gt;&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt; &amp; &quot;quoted&quot; {{style}} \u{fffd}";
    assert!(page.contains(&format!("<title>{safe}</title>")));
    // Outside of the style and the script, tags balance: no text opened or closed one.
    for tag in [
        "section", "article", "details", "table", "tr", "td", "th", "figure", "dl", "ol", "li", "span", "b", "i", "p",
        "svg",
    ] {
        let (opened, closed) = (
            page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count(),
            page.matches(&format!("</{tag}>")).count(),
        );
        assert_eq!(opened, closed, "{tag}");
    }
}

#[test]
fn every_picture_decodes_and_has_a_description() {
    let page = render(&report("a", 2)).unwrap();
    let pictures: Vec<&str> = page.split("<img ").skip(1).map(|rest| rest.split_once('>').unwrap().0).collect();
    // The first image and the model's masks; input, truth, prediction, errors; photo and two stages; one present class
    // at two stages and its mask. The same of a bad image; input, truth and prediction around a issue.
    assert_eq!(pictures.len(), 2 + 4 + 3 + 3 + 4 + 3);
    for picture in pictures {
        let attribute = |name: &str| picture.split_once(&format!("{name}=\"")).unwrap().1.split_once('"').unwrap().0;
        assert!(!attribute("alt").is_empty());
        assert!(pictures::tests::decode(attribute("src")).width() > 0);
    }
}

#[test]
fn the_first_picture_is_the_models_masks_over_the_input() {
    let mut given = report("a", 2);
    given.samples[0].prediction.ids.fill(1);
    given.classes[1].color = [9, 8, 7];
    let page = render(&given).unwrap();
    // Before every section, and there without a script.
    let top = page.split_once("<main").unwrap().0;
    let sources: Vec<&str> = top.split("src=\"").skip(1).map(|rest| rest.split_once('"').unwrap().0).collect();
    assert_eq!(sources.len(), 2);
    assert_eq!(pictures::tests::decode(sources[0]).get_pixel(0, 0).0, [90, 90, 90, 255]);
    assert_eq!(pictures::tests::decode(sources[1]).get_pixel(0, 0).0, [9, 8, 7, 255]);
}

#[test]
fn no_card_stands_alone_in_its_row() {
    let mut given = report("a", 2);
    for (cards, columns) in [(1, 1), (2, 2), (3, 3), (4, 4), (5, 3), (6, 3), (7, 4), (8, 4), (9, 3)] {
        given.headlines = vec![given.headlines[0].clone(); cards];
        let page = render(&given).unwrap();
        assert!(page.contains(&format!("<dl class=\"tiles\" style=\"--n:{columns}\">")), "{cards}");
        assert!(cards == 1 || cards % columns != 1, "{cards}");
    }
}

#[test]
fn the_page_loads_nothing() {
    let page = render(&report("a", 2)).unwrap();
    for outside in ["https:", "src=\"h", "@import", "url(", "fetch(", "XMLHttpRequest"] {
        assert!(!page.contains(outside), "{outside}");
    }
    // The name of SVG's namespace is the only address, and it is never opened.
    assert_eq!(page.matches("http://").count(), page.matches("http://www.w3.org/2000/svg").count());
}

#[test]
fn an_empty_report_is_a_page_without_sections() {
    let page = render(&Report::default()).unwrap();
    assert!(!page.contains("<section") && page.ends_with("</html>\n"));
}

#[test]
fn odd_numbers_never_reach_the_page() {
    let (nan, inf) = (f64::NAN, f64::INFINITY);
    let mut odd = report("a", 1);
    odd.headlines = vec![Headline::mean_iou(nan), Headline::mean_dice(inf)];
    odd.curves[0].points = vec![(0.0, nan), (1.0, inf), (2.0, 1.0)];
    odd.classes[0] = ClassRow { iou: Some(nan), accuracy: Some(-inf), dice: None, pixels: 0, ..odd.classes[0].clone() };
    odd.samples[0].iou = Some(nan);
    odd.samples[0].blocks[0].maps = vec![f32::NAN; 6];
    odd.samples[0].truth.ids.fill(255);
    odd.samples[0].prediction.ids.fill(200);
    let page = render(&odd).unwrap();
    let visible =
        page.split("data:image").map(|part| part.split_once('"').map_or(part, |(_, rest)| rest)).collect::<String>();
    assert!(!visible.contains("NaN") && !visible.contains("inf "));
    assert!(page.contains("1 of 1 classes does not occur in the truth: a.") && page.contains("absent, no score"));
}

#[test]
fn parts_that_do_not_fit_are_named() {
    type Break = fn(&mut Report);
    let breaks: [(Break, &str); 9] = [
        (|r| r.found.as_mut().unwrap().scores.classes.clear(), "evaluation is not of 2 classes"),
        (|r| r.worst[0].truth.width = 1, "`a` has a truth of another size"),
        (|r| r.label_issues[0].crop.prediction.ids.clear(), "`a` has a prediction of another size"),
        (|r| r.confusion = Some(vec![vec![0; 2]]), "confusion matrix is not 2 x 2"),
        (|r| r.samples[0].image.width = usize::MAX, "sample `a` has 144 bytes"),
        (|r| r.samples[0].truth.ids.truncate(3), "`a` has a truth of another size"),
        (|r| r.samples[0].prediction.height = 1, "`a` has a prediction of another size"),
        (|r| r.samples[0].blocks[1].maps.clear(), "token maps `a1` that are not 2 x"),
        (|r| r.classes = vec![ClassRow::default(); 256], "at most 255 classes"),
    ];
    for (breaks, message) in breaks {
        let mut wrong = report("a", 2);
        breaks(&mut wrong);
        let error = render(&wrong).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn a_page_is_written_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.html");
    write_report(&path, &report("a", 2)).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), render(&report("a", 2)).unwrap());
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 1);
    let error = write_report(&path.join("report.html"), &report("a", 2)).unwrap_err();
    assert!(error.to_string().contains("report.html") && error.hint().is_some());
}
