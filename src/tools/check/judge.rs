//! Faults that only the whole set shows: values, encodings, leaks between splits, classes that are nowhere.

use std::collections::BTreeMap;
use std::path::Path;

use crate::dataset::cause::STRAY;
use crate::dataset::palette::Group;
use crate::dataset::spec::{ClassSpec, Encoding, PaletteUse, Source};
use crate::dataset::{Split, cause};
use crate::image::{IGNORE, common_range};
use crate::text::{Rest, shortened};
use crate::tools::check::fault::{Example, Fault, Faults, Severity};
use crate::tools::check::mixed::Mixed;
use crate::tools::check::objects::{close_values, objects, smoothed_numbers};
use crate::tools::check::totals::{SplitTotals, Totals, noun};

/// The remedy of faults that come with lines of TOML.
const REMEDY_EDIT_TOML: &str = "put these lines at the top of the dataset's TOML, in place of any with the same keys (for \
                                `classes`: all [[classes]] tables)";

/// How many values a fault shows; the report lists more.
const SHOWN: usize = 5;

/// Adds what is wrong with the sums, the worst first.
pub(super) fn judge(totals: &Totals, faults: &mut Faults) {
    depth(totals, faults);
    white_is_zero(totals, faults);
    other_encoding(totals, faults);
    // Where numbers mean one thing here and another there, lines that map them would make it worse.
    if !palettes_differ(totals, faults) && !mixed_encodings(totals, faults) {
        unknown_values(totals, faults);
    }
    objects(totals, faults);
    close_values(totals, faults);
    smoothed_numbers(totals, faults);
    faults.next_stage();
    same_pictures(totals, faults);
    faults.next_stage();
    for sums in &totals.splits {
        masks_alike(sums, faults);
    }
    absent_classes(totals, faults);
    stray_classes(totals, faults);
}

/// Images of 16 bits per channel that use few of their values, or others than the description says.
fn depth(totals: &Totals, faults: &mut Faults) {
    let Some([low, high]) = totals.deep else { return };
    let values = format!("the values of the whole dataset are {low} to {high}");
    match totals.spec.range {
        None if let Some([_, most]) = common_range(high) => {
            let what = "16-bit images that use only a part of the range, and are nearly black as read";
            let fault = Fault::new(Severity::Warning, "narrow-range", what, REMEDY_EDIT_TOML);
            faults.add_many(
                fault.unit("set").cause(values).toml(format!("range = [0, {most}]")),
                1,
                std::iter::empty(),
            );
        }
        Some([from, to]) if low < from || high > to => {
            let what = format!("images with 16-bit values outside `range = [{from}, {to}]`, which are clipped");
            let fault = Fault::new(Severity::Warning, "beyond-range", what, REMEDY_EDIT_TOML);
            let toml = format!("range = [{}, {}]", low.min(from), high.max(to));
            faults.add_many(fault.unit("set").cause(values).toml(toml), 1, std::iter::empty());
        }
        _ => {}
    }
}

/// Grey masks whose numbers are turned round, since the file says that 0 is white.
fn white_is_zero(totals: &Totals, faults: &mut Faults) {
    let Some(first) = totals.white_is_zero.first() else { return };
    let fault = match &totals.black_is_zero {
        Some(other) => Fault::new(
            Severity::Fault,
            "mixed-grays",
            "masks that say that 0 is white, and others where it is black: one number may be two labels",
            "export all masks in one way, with 0 as black",
        )
        .cause(format!("0 is white in `{}`, and black in `{}`", first.display(), other.display())),
        None => Fault::new(
            Severity::Warning,
            "white-is-zero",
            "masks that say that 0 is white: their values are used as they look, 255 for a stored 0",
            "no action is needed if the classes are as they look; if they are not, export the masks with 0 as black",
        ),
    };
    faults.add_many(fault, totals.white_is_zero.len(), totals.white_is_zero.iter().map(|path| Example::file(path)));
}

fn other_encoding(totals: &Totals, faults: &mut Faults) {
    if totals.other_encoding.is_empty() {
        return;
    }
    let (encoding, count, all) =
        (totals.spec.encoding, totals.other_encoding.len(), totals.splits.iter().map(|sums| sums.pairs).sum::<usize>());
    let (is, code) = match encoding {
        Encoding::Index => (Encoding::Rgb, "rgb-mask"),
        Encoding::Rgb => (Encoding::Index, "index-mask"),
    };
    let what = format!("masks of {} where {} are declared", noun(is), noun(encoding));
    let remedy = if count < all {
        format!("export all masks the same way: {} of {all} hold {}", all - count, noun(encoding))
    } else {
        REMEDY_EDIT_TOML.to_string()
    };
    let fault = Fault::new(Severity::Fault, code, what, remedy);
    let fault = match (encoding, &totals.first_declared) {
        (_, Some(first)) => {
            fault.cause(format!("{} masks hold {}, as `{}`", all - count, noun(encoding), first.display()))
        }
        (Encoding::Index, None) => as_colors(totals, fault),
        (Encoding::Rgb, None) => Fault {
            remedy: "set encoding = \"index\" and give the classes their numbers as `source`".to_string(),
            ..fault
        },
    };
    let examples = totals.other_encoding.iter().take(SHOWN).map(|path| Example::file(path));
    faults.add_many(fault, count, examples);
}

/// The set declares numbers; all masks are colours.
fn as_colors(totals: &Totals, fault: Fault) -> Fault {
    let seen: Vec<(Source, u64)> = totals.other_values.iter().map(|(value, pixels)| (*value, *pixels)).collect();
    let gray = |value: &Source| matches!(value, Source::Rgb([r, g, b]) if r == g && g == b);
    if seen.iter().all(|(value, _)| gray(value)) {
        let rgb = |source: Source| match source {
            Source::Index(n) => Source::Rgb([u8::try_from(n).unwrap_or(u8::MAX); 3]),
            color => color,
        };
        let sources = |(index, class): (usize, &ClassSpec)| {
            class.sources(index, Encoding::Index).unwrap_or_default().into_iter().map(rgb).collect()
        };
        let classes = cause::table(&totals.spec.classes, totals.spec.classes.iter().enumerate().map(sources));
        let ignore: Vec<Source> = totals.spec.ignore.iter().copied().map(rgb).collect();
        let ignore = if ignore.is_empty() { String::new() } else { format!("{}\n", cause::list(&ignore)) };
        return fault
            .cause("grey numbers saved as RGB: red, green and blue are equal")
            .toml(format!("encoding = \"rgb\"\n{ignore}{classes}"));
    }
    let named = |color: &Source| totals.spec.classes.iter().any(|class| class.color.map(Source::Rgb) == Some(*color));
    let known = seen.iter().filter(|(color, _)| named(color)).count();
    if known > 0 && known * 2 >= seen.len() {
        let sources = |class: &ClassSpec| class.color.map(Source::Rgb).into_iter().collect();
        let classes = cause::table(&totals.spec.classes, totals.spec.classes.iter().map(sources));
        let unknown: Vec<Source> = seen.iter().map(|(color, _)| *color).filter(|color| !named(color)).collect();
        let ignore = if unknown.is_empty() { String::new() } else { format!("{}\n", cause::list(&unknown)) };
        return fault
            .cause("the masks show the classes in their colours")
            .toml(format!("encoding = \"rgb\"\n{ignore}{classes}"));
    }
    let mut seen = seen;
    seen.sort_by_key(|(_, pixels)| std::cmp::Reverse(*pixels));
    let colors = shortened(seen.iter().map(|(color, _)| color), 8, Rest::Counted);
    Fault {
        remedy: "set encoding = \"rgb\" and give each class its `color`, from the labelling tool".to_string(),
        ..fault
    }
    .cause(format!("the colours are {colors}; the files do not say which class each of them is"))
}

/// Files show one number in different colours. Whether that is so.
fn palettes_differ(totals: &Totals, faults: &mut Faults) -> bool {
    let groups = &totals.palettes.groups;
    if totals.spec.palettes == PaletteUse::Any || !totals.palettes.differ() {
        return false;
    }
    let shows = |group: &Group| {
        let shown = group.shown.iter().map(|(number, color)| format!("{number} = {}", Source::Rgb(*color)));
        format!("{}, in {}", shortened(shown, SHOWN, Rest::Dots), counted(group.files as u64, "mask"))
    };
    let examples = groups.iter().take(SHOWN).map(|group| Example::file(&group.first).note(shows(group)));
    let remedy = format!(
        "if the colours are the labels, {REMEDY_EDIT_TOML}, and give each class its name; if the numbers are, whatever they look like: \
         palettes = \"any\", at the top too"
    );
    let colors = totals.palettes.colors();
    let class = |color: &Source| {
        let known = totals.spec.classes.iter().find(|class| class.color.map(Source::Rgb) == Some(*color));
        let (Source::Rgb([r, g, b]), None) = (color, known) else { return known.cloned() };
        Some(ClassSpec { name: format!("class {r}-{g}-{b}"), color: Some([*r, *g, *b]), source: None })
    };
    let classes: Vec<ClassSpec> = colors.iter().filter_map(class).collect();
    let table = cause::table(&classes, colors.iter().map(|color| vec![*color]));
    let what = "palettes that show one number in different colours: the numbers do not mean the same in all masks";
    let fault = Fault::new(Severity::Fault, "palettes-differ", what, remedy)
        .unit("palette")
        .cause("image editors and PNG optimisers reorder the palette of each file; the colours are then the labels")
        .toml(format!("encoding = \"rgb\"\nignore = []\n{table}"));
    faults.add_many(fault, groups.len(), examples);
    true
}

/// Files store the same labels in two ways. Whether that is so.
fn mixed_encodings(totals: &Totals, faults: &mut Faults) -> bool {
    if let Some(mirrored) = totals.kinds.mirrored() {
        let remedy = "export the masks of one way again, or let the `source` of each class hold both of its colours";
        let united = mirrored.united(|colour| totals.map.class_of(colour));
        let level = if united { Severity::Warning } else { Severity::Fault };
        let fault = Fault::new(level, "mixed-encodings", "masks that store labels in two different ways", remedy);
        let examples = mirrored.sides.iter().map(|(_, first, colour)| Example::file(first).value(*colour));
        let fewer = mirrored.sides.iter().map(|(count, ..)| *count).min().unwrap_or(0);
        faults.add_many(fault.cause(mirrored.what()), fewer, examples);
        return !united;
    }
    let class_of = |n: u16| totals.map.class_of(Source::Index(n));
    let Some(Mixed { why, sides, same }) = totals.kinds.mixed(|n| class_of(n).is_some()) else {
        return false;
    };
    // What the description says of every one of them holds; that it is so remains worth a word.
    let pairs = || same.iter().filter(|(gray, id)| **gray > 0 && gray != id);
    let united = pairs().all(|(gray, id)| class_of(*gray).is_some() && class_of(*gray) == class_of(*id));
    let class = |n: u16| class_of(n).is_some_and(|class| class != IGNORE);
    let apart = pairs().all(|(gray, id)| !matches!(*gray, 255 | u16::MAX) && class(*gray) && class(*id));
    let level = if !same.is_empty() && (united || apart) { Severity::Warning } else { Severity::Fault };
    let remedy = match level {
        Severity::Fault if same.is_empty() => {
            "keep masks of one kind, and export the others again in the same way; no line of the TOML can tell them apart"
        }
        Severity::Fault => {
            "keep masks of one kind, and export the others again in the same way; or let `source` of each class hold its \
             numbers of both kinds"
        }
        Severity::Warning => {
            "no action is needed if the classes' `source` is right; if it is not, export all masks in one way"
        }
    };
    let what = "masks that store labels in two different ways";
    let fault = Fault::new(level, "mixed-encodings", what, remedy).cause(why);
    let fewer = sides.iter().map(|side| side.masks).min().unwrap_or(0);
    let examples = sides.iter().map(|side| Example::file(&side.first).note(side.text()));
    faults.add_many(fault, fewer, examples);
    level == Severity::Fault
}

fn unknown_values(totals: &Totals, faults: &mut Faults) {
    let mut unknown: Vec<_> =
        totals.values.iter().filter(|(value, _)| totals.map.class_of(**value).is_none()).collect();
    if unknown.is_empty() {
        return;
    }
    let pixels: BTreeMap<Source, u64> = totals.values.iter().map(|(value, sum)| (*value, sum.pixels)).collect();
    let cause = totals.map.likely_cause(&pixels);
    unknown.sort_by_key(|(_, sum)| std::cmp::Reverse((sum.masks, sum.pixels)));
    let examples = unknown.iter().take(SHOWN).map(|(value, sum)| {
        let note = format!("{} in {}", counted(sum.pixels, "pixel"), counted(sum.masks, "mask"));
        Example::file(&sum.first).at(sum.at).value(**value).note(note)
    });
    let what = "values in masks that are neither a class nor ignored";
    let remedy = match (&cause.toml, &cause.otherwise) {
        (Some(_), Some(otherwise)) => format!("{REMEDY_EDIT_TOML}; {otherwise}"),
        (Some(_), None) => REMEDY_EDIT_TOML.to_string(),
        (None, _) => "fix the cause where the masks are made; no line of the TOML can do it".to_string(),
    };
    let mut fault = Fault::new(Severity::Fault, cause.code, what, remedy).cause(cause.why).unit("value");
    fault.toml = cause.toml;
    faults.add_many(fault, unknown.len(), examples);
}

/// The same pixels under two names: within a split, or, worse, in two.
fn same_pictures(totals: &Totals, faults: &mut Faults) {
    let mut groups: Vec<_> = totals.pictures.values().filter(|places| places.len() > 1).collect();
    groups.sort_by_key(|places| &places[0].1);
    for places in groups {
        let first = &places[0];
        let same = |path: &Path| format!("the same as `{}`", path.display());
        for (split, path, mask) in &places[1..] {
            let example = Example::file(path).note(same(&first.1));
            let fault = if *split != first.0 {
                let names = (totals.splits[first.0].split, totals.splits[*split].split);
                Fault::new(
                    Severity::Fault,
                    "leak",
                    format!("images of [{}] that are also in [{}]: scores on them say nothing", names.1, names.0),
                    format!(
                        "keep each in one split: remove the files from [{}], or leave them out with a `list`",
                        names.0
                    ),
                )
            } else if *mask != first.2 {
                let what = "duplicate images with different masks";
                Fault::new(Severity::Warning, "contradiction", what, "keep the better mask, and remove the other pair")
            } else {
                Fault::new(Severity::Warning, "duplicate", "duplicate images", "remove one of each")
            };
            faults.add(fault, example);
        }
    }
}

fn masks_alike(sums: &SplitTotals, faults: &mut Faults) {
    let (split, count) = (sums.split, sums.constant.len() + sums.blank.len());
    let examples =
        |paths: &[std::path::PathBuf]| paths.iter().take(SHOWN).map(|path| Example::file(path)).collect::<Vec<_>>();
    let masks: usize = sums.masks.values().sum();
    if !sums.blank.is_empty() {
        let all = sums.blank.len() == masks;
        let fault = Fault::new(
            if all { Severity::Fault } else { Severity::Warning },
            "all-ignored",
            format!("masks of [{split}] in which every pixel is ignored{}", if all { ": all of them" } else { "" }),
            if all {
                "check `ignore` and the classes' `source`"
            } else {
                "label them, or leave the images out: nothing can be learned from them"
            },
        );
        faults.add_many(fault, sums.blank.len(), examples(&sums.blank));
    }
    if masks > 1 && 2 * sums.constant.len() > masks {
        let fault = Fault::new(
            Severity::Warning,
            "constant-masks",
            format!("masks of [{split}] that hold one value almost everywhere (99.9 %), more than half of all masks"),
            "if objects are missing from them, export the masks again",
        );
        faults.add_many(fault, sums.constant.len(), examples(&sums.constant));
    } else if masks > 1 && sums.masks.len() == 1 && count == 0 {
        let fault = Fault::new(
            Severity::Warning,
            "identical-masks",
            format!("all masks of [{split}] are the same"),
            "if the images differ, the export wrote the same mask for all: export again",
        );
        faults.add_many(fault, masks, []);
    }
}

fn absent_classes(totals: &Totals, faults: &mut Faults) {
    let names = |absent: &dyn Fn(usize) -> bool| -> Vec<&str> {
        let classes = totals.spec.classes.iter().enumerate().filter(|(index, _)| absent(*index));
        classes.map(|(_, class)| class.name.as_str()).collect()
    };
    let has = |sums: &SplitTotals, index: usize| sums.class_pixels[index] > 0;
    // Without masks that could be read, all classes are absent; that is reported already.
    let read = |sums: &&SplitTotals| sums.pixels > 0;
    let splits: Vec<&SplitTotals> = totals.splits.iter().filter(read).collect();
    if splits.is_empty() {
        return;
    }
    let warn = |code, what: String, names: &[&str], remedy: &str| {
        Fault::new(Severity::Warning, code, format!("{what}: {}", listed(names)), remedy).unit("class")
    };
    let nowhere = |index| !splits.iter().any(|sums| has(sums, index));
    let absent = names(&nowhere);
    if !absent.is_empty() {
        let mut fault = warn(
            "class-absent",
            "classes without a pixel in any split".to_string(),
            &absent,
            "check their `source`, or remove them from `classes`",
        );
        let ignored_255 =
            totals.map.class_of(Source::Index(255)) == Some(IGNORE) && totals.values.contains_key(&Source::Index(255));
        if totals.spec.classes.len() == 2 && ignored_255 && totals.values.len() == 2 {
            let sources = [vec![Source::Index(0)], vec![Source::Index(255)]];
            fault = fault
                .cause("masks of 0 and 255, and 255 is ignored: is it the second class?")
                .toml(format!("ignore = []\n{}", cause::table(&totals.spec.classes, sources.into_iter())));
        }
        faults.add_many(fault, absent.len(), []);
    }
    let Some(train) = splits.iter().find(|sums| sums.split == Split::Train) else { return };
    for other in splits.iter().filter(|sums| sums.split != train.split) {
        let unlearned = names(&|index| !has(train, index) && has(other, index));
        if !unlearned.is_empty() {
            let what = format!("classes of [{}] that [train] lacks: they cannot be learned", other.split);
            let fault = warn("class-not-in-train", what, &unlearned, "move images that show them into [train]");
            faults.add_many(fault, unlearned.len(), []);
        }
    }
    faults.next_stage();
    for other in splits.iter().filter(|sums| sums.split != train.split) {
        let unjudged = names(&|index| has(train, index) && !has(other, index));
        if !unjudged.is_empty() {
            let what = format!("classes of [train] that [{}] lacks: they get no score", other.split);
            let remedy = format!("move images that show them into [{}]", other.split);
            faults.add_many(warn("class-not-judged", what, &unjudged, &remedy), unjudged.len(), []);
        }
    }
}

/// Known values of so few pixels that they are not objects.
fn stray_classes(totals: &Totals, faults: &mut Faults) {
    let all: u64 = totals.values.values().map(|sum| sum.pixels).sum();
    for (value, sum) in &totals.values {
        let Some(label) = totals.map.class_of(*value).filter(|label| *label != IGNORE) else { continue };
        if sum.pixels < STRAY && all > 100 * STRAY {
            let fault = Fault::new(
                Severity::Warning,
                "stray-values",
                format!("values of classes with fewer than {STRAY} pixels in all masks"),
                "if they are annotation errors, move the value from the class's `source` to `ignore`, and remove a \
                 class that has no other value from `classes`",
            );
            let fault = fault.unit("value");
            let note =
                format!("{} of `{}`", counted(sum.pixels, "pixel"), totals.spec.classes[usize::from(label)].name);
            faults.add(fault, Example::file(&sum.first).at(sum.at).value(*value).note(note));
        }
    }
}

fn counted(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

fn listed(names: &[&str]) -> String {
    shortened(names, 8, Rest::Counted)
}
