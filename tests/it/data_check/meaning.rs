//! Numbers that do not mean the same in all files: palettes, bit depths, encodings mixed.

use super::*;
use structtoken::image::{Labels, write_index_png};

/// Which colour each number stands for, by turns.
const ORDERS: [[usize; 3]; 3] = [[0, 1, 2], [0, 2, 1], [2, 0, 1]];

/// Colours of no known set, in which classes would have names.
const INKS: [[u8; 3]; 3] = [[10, 10, 10], [250, 10, 10], [10, 10, 250]];

impl Set {
    /// Writes a description by what the masks hold.
    fn init(&self) {
        std::fs::remove_file(self.lab.path("set.toml")).unwrap();
        self.lab.ok(&["init", ".", "--out", "set.toml"]);
    }

    /// Writes a mask of thirds as a palette PNG whose numbers stand for the colours in this order.
    fn palette(&self, name: &str, order: [usize; 3], colors: [[u8; 3]; 3]) {
        let number = |id: u8| order.iter().position(|of| *of == usize::from(id)).unwrap() as u8;
        let ids = (0..SIZE.1).flat_map(|y| (0..SIZE.0).map(move |x| number(label(x, y)))).collect();
        let labels = Labels { width: SIZE.0 as usize, height: SIZE.1 as usize, ids };
        write_index_png(self.path(name), &labels, &order.map(|id| colors[id])).unwrap();
    }

    /// Writes a grey PNG of so few bits, each number as it is stored.
    fn packed(&self, name: &str, depth: png::BitDepth, id: impl Fn(u32, u32) -> u8) {
        let (bits, per_byte) = (depth as u32, 8 / depth as u32);
        let byte = |x: u32, y: u32| (0..per_byte).fold(0, |byte, at| byte << bits | id(x + at, y));
        let data: Vec<u8> = (0..SIZE.1)
            .flat_map(|y| (0..SIZE.0).step_by(per_byte as usize).map(move |x| (x, y)))
            .map(|(x, y)| byte(x, y))
            .collect();
        let file = std::fs::File::create(self.path(name)).unwrap();
        let mut encoder = png::Encoder::new(file, SIZE.0, SIZE.1);
        encoder.set_color(png::ColorType::Grayscale);
        encoder.set_depth(depth);
        encoder.write_header().unwrap().write_image_data(&data).unwrap();
    }
}

fn number(name: &str) -> usize {
    name.chars().find(char::is_ascii_digit).unwrap() as usize
}

#[test]
fn palettes_that_differ_are_read_by_colour() {
    let set = Set::good();
    set.each_mask(|set, name| set.palette(name, ORDERS[number(name) % 3], INKS));
    let fault = set.finds(Severity::Fault, "palettes-differ", "train/masks/0.png");
    assert_eq!((fault.count, fault.examples.len()), (3, 3), "{fault:?}");
    assert!(fault.examples[1].note.as_ref().unwrap().contains("1 = [10, 10, 250]"), "{fault:?}");
    // Training does not take numbers as they are either.
    let train = DatasetSpec::read(&set.path("set.toml")).unwrap().open(Split::Train, None).unwrap();
    let error = train.survey().unwrap_err();
    assert!(error.to_string().contains("different colours") && error.hint().unwrap().contains("palettes = \"any\""));
    // By colour, every label is right.
    let by_number = std::fs::read_to_string(set.path("set.toml")).unwrap();
    let report = set.remedied(&fault);
    let colors = fault.toml.as_ref().unwrap();
    let class = |id: u8| {
        let [r, g, b] = INKS[usize::from(id)];
        report.classes.iter().position(|class| class.name == format!("class {r}-{g}-{b}")).unwrap() as u8
    };
    assert!(colors.contains("encoding = \"rgb\""));
    set.labels_are(|x, y| class(label(x, y)));
    // As it is said: at the top, in place of all lines of the same keys, of a description as `init` writes it.
    assert!(fault.remedy.contains("at the top"), "{}", fault.remedy);
    let tables = "\n[[classes]]\nname = \"ground\"\n";
    let rest = by_number.replace("classes = [\"ground\", \"road\", \"car\"]\n", "");
    assert!(DatasetSpec::parse(&format!("{rest}{tables}"), &set.path("set.toml")).is_ok());
    set.lab.write("set.toml", format!("{colors}\n{rest}"));
    assert!(set.check().ok, "{}", set.check().text());
    // With the classes' colours told, they keep their names.
    let named = by_number.replace("\"ground\"", "{ name = 'ground', color = [10, 10, 10], source = [0] }");
    set.lab.write("set.toml", named);
    assert!(
        set.remedied(&set.finds(Severity::Fault, "palettes-differ", ""))
            .classes
            .iter()
            .any(|class| class.name == "ground")
    );
    // The other reading has to be asked for.
    set.lab.write("set.toml", format!("palettes = 'any'\n{by_number}"));
    assert!(set.check().faults.iter().all(|fault| fault.code != "palettes-differ"));
    // `init` reads colours by itself, in the order of the first palette.
    set.init();
    assert!(set.check().ok, "{}", set.check().text());
    set.labels_are(label);
    assert!(set.lab.ok(&["data", "check", "."]).contains("no faults"));
}

/// Black, red and blue are colours of ADE20K too, and of everybody else.
#[test]
fn primary_colours_are_of_no_known_set() {
    let set = Set::good();
    let primaries = [[0; 3], [255, 0, 0], [0, 0, 255]];
    set.each_mask(|set, name| set.palette(name, ORDERS[number(name) % 3], primaries));
    set.init();
    let report = set.check();
    let names: Vec<&str> = report.classes.iter().map(|class| class.name.as_str()).collect();
    assert_eq!(names, ["class 0-0-0", "class 255-0-0", "class 0-0-255"], "{}", report.text());
    set.labels_are(label);
}

#[test]
fn palettes_that_agree_are_no_fault() {
    let set = Set::good();
    // What a file does not use, it may call otherwise.
    set.each_mask(|set, name| {
        let more = [COLORS.to_vec(), vec![[number(name) as u8; 3]; 4]].concat();
        let ids = (0..SIZE.1).flat_map(|y| (0..SIZE.0).map(move |x| label(x, y))).collect();
        let labels = Labels { width: SIZE.0 as usize, height: SIZE.1 as usize, ids };
        write_index_png(set.path(name), &labels, &more).unwrap();
    });
    assert!(set.check().faults.iter().all(|fault| fault.level == Severity::Warning), "{}", set.check().text());
    set.labels_are(label);
}

#[test]
fn colours_are_read_through_palettes_and_greys() {
    let set = Set::rgb();
    set.each_mask(|set, name| match number(name) % 2 {
        0 => set.palette(name, ORDERS[number(name) % 3], COLORS),
        _ => set.colors(name, |x, y| COLORS[usize::from(label(x, y))]),
    });
    assert!(set.check().ok, "{}", set.check().text());
    set.labels_are(label);
    // Of numbers instead, one part is wrong, and the other named.
    let mixed = Set::good();
    mixed.colors("train/masks/1.png", |x, y| COLORS[usize::from(label(x, y))]);
    let fault = mixed.finds(Severity::Fault, "rgb-mask", "train/masks/1.png");
    assert!(fault.cause.unwrap().contains("train/masks/0.png"));
    // A picture that an optimiser stored as greys of one bit, because it is black.
    let set = Set::rgb();
    set.packed("train/masks/0.png", png::BitDepth::One, |_, _| 0);
    assert!(set.check().ok, "{}", set.check().text());
    // Numbers are not colours: not even where 0 would be black.
    let set = Set::rgb();
    set.each_mask(|set, name| set.mask(name, SIZE, label));
    assert_eq!(set.finds(Severity::Fault, "index-mask", "train/masks/0.png").count, 7);
}

#[test]
fn greys_of_few_bits_mean_what_they_look_like() {
    let set = Set::good();
    set.toml("[\"ground\", \"road\", \"car\"]", "[\"ground\", \"road\"]");
    let side = |x: u32, _: u32| u8::from(x > 20);
    set.each_mask(|set, name| match number(name) % 2 {
        0 => set.packed(name, png::BitDepth::One, side),
        _ => set.mask(name, SIZE, |x, y| 255 * side(x, y)),
    });
    let fault = set.finds(Severity::Fault, "binary-mask", "train/masks/0.png");
    set.remedied(&fault);
    set.labels_are(side);
    let set = Set::good();
    set.each_mask(|set, name| match number(name) % 2 {
        0 => set.packed(name, png::BitDepth::Two, |x, y| [0, 1, 3][usize::from(label(x, y))]),
        _ => set.mask(name, SIZE, |x, y| [0, 85, 255][usize::from(label(x, y))]),
    });
    set.toml("\"road\", \"car\"", "{ name = \"road\", source = [85] }, { name = \"car\", source = [255] }");
    assert!(set.check().ok, "{}", set.check().text());
    set.labels_are(label);
    let set = Set::good();
    set.each_mask(|set, name| set.packed(name, png::BitDepth::Four, label));
    set.init();
    set.labels_are(label);
}

#[test]
fn encodings_that_are_mixed_name_both_groups() {
    let of_both = |fault: &Fault, a: &str, b: &str| {
        assert_eq!(fault.examples.len(), 2);
        assert_eq!([&fault.examples[0].file, &fault.examples[1].file], [Path::new(a), Path::new(b)]);
        assert!(
            fault.toml.is_none() && fault.examples[0].note.as_ref().unwrap().contains("masks hold 0, 1"),
            "{fault:?}"
        );
    };
    let side = |x: u32| u8::from(x > 20);
    for (level, classes) in [
        (Severity::Fault, "\"ground\", \"road\"]\nignore = [255]"),
        // Lines that unite both are right, and the two ways still worth a word.
        (Severity::Warning, "\"ground\", { name = \"road\", source = [1, 255] }]"),
    ] {
        let set = Set::good();
        set.toml("\"ground\", \"road\", \"car\"]", classes);
        set.each_mask(|set, name| {
            set.mask(name, SIZE, |x, _| side(x) * if number(name).is_multiple_of(2) { 1 } else { 255 })
        });
        of_both(&set.finds(level, "mixed-encodings", ""), "train/masks/0.png", "train/masks/1.png");
        set.lab.refused(&["init", ".", "--out", "new.toml"], &["0, 255", "0, 1"]);
    }
    let set = Set::good();
    set.each_mask(|set, name| set.mask(name, SIZE, |x, y| label(x, y) + u8::from(number(name) % 2 == 1)));
    of_both(&set.finds(Severity::Fault, "mixed-encodings", ""), "train/masks/0.png", "train/masks/1.png");
    assert!(set.check().faults.iter().all(|fault| fault.code != "counted-from-one"), "that would shift all");
    set.lab.refused(&["init", ".", "--out", "new.toml"], &["0, 1, 2", "1, 2, 3"]);
    let set = Set::good();
    set.each_mask(|set, name| {
        set.mask(name, SIZE, |x, y| [label(x, y), [0, 127, 255][usize::from(label(x, y))]][number(name) % 2])
    });
    of_both(&set.finds(Severity::Fault, "mixed-encodings", ""), "train/masks/0.png", "train/masks/1.png");
}
