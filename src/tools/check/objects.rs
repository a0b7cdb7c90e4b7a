//! Classes whose values look like those of single objects, or like what JPEG leaves.

use std::collections::BTreeSet;

use crate::dataset::blended_values::{peaks, rims};
use crate::dataset::spec::Source;
use crate::image::IGNORE;
use crate::tools::check::colors::Objects;
use crate::tools::check::fault::{Example, Fault, Faults, Severity};
use crate::tools::check::totals::{Totals, ValueTotals};

/// How many values a fault shows.
const SHOWN: usize = 5;

/// Values of objects, each taken for a class.
pub(super) fn objects(totals: &Totals, faults: &mut Faults) {
    let Some(Objects { values, why, confirmed }) = totals.kinds.objects() else { return };
    let classes: BTreeSet<u8> =
        values.iter().filter_map(|value| totals.map.class_of(*value)).filter(|class| *class != IGNORE).collect();
    // Names that say no more than the value are nobody's.
    let called = |class: &&u8| totals.spec.classes[usize::from(**class)].name.starts_with("class ");
    if classes.len() * 2 < values.len() || !confirmed && 2 * classes.iter().filter(called).count() < classes.len() {
        return;
    }
    let rgb = matches!(values.first(), Some(Source::Rgb(_)));
    let (what, rest) = match rgb {
        true => ("classes whose colours look like those of single objects", Source::Rgb([0; 3])),
        false => ("classes whose numbers look like those of single objects", Source::Index(0)),
    };
    let mut remedy = "if they are, export masks of classes".to_string();
    let list = values.iter().map(Source::to_string).collect::<Vec<_>>().join(", ");
    let toml = totals.map.class_of(rest).filter(|class| *class != IGNORE && !classes.contains(class)).map(|_| {
        remedy += "; or, to tell objects from the background alone, put this line at the top of the dataset's TOML, in place \
                   of all [[classes]] tables";
        format!("classes = [{{ name = \"background\", source = [{rest}] }}, {{ name = \"object\", source = [{list}] }}]")
    });
    let mut fault = Fault::new(Severity::Warning, "numbered-objects", what, remedy).cause(why).unit("class");
    fault.toml = toml;
    faults.add_many(fault, classes.len(), []);
}

/// Classes of which most lie close around few others, as the values that JPEG leaves.
pub(super) fn close_values(totals: &Totals, faults: &mut Faults) {
    let known = || totals.values.iter().filter(|(value, _)| totals.map.class_of(**value).is_some());
    let Some(peaks) = peaks(known().map(|(value, sum)| (*value, sum.pixels))) else { return };
    let shown: Vec<String> = peaks.iter().take(SHOWN).map(Source::to_string).collect();
    let what = format!(
        "values of classes or ignored ones that are close to a few others, as JPEG leaves them: {}",
        shown.join(", ")
    );
    let remedy = "export the masks again as PNG from the labelling tool, and run `init` again";
    let fault = Fault::new(Severity::Warning, "close-values", what, remedy).unit("value");
    let mut others: Vec<_> = known().filter(|(value, _)| !peaks.contains(value)).collect();
    others.sort_by_key(|(_, sum)| std::cmp::Reverse(sum.pixels));
    let example = |(value, sum): &(&Source, &ValueTotals)| Example::file(&sum.first).at(sum.at).value(**value);
    faults.add_many(fault, others.len(), others.iter().take(SHOWN).map(example));
}

/// Classes whose numbers lie between those of their neighbours nearly wherever they occur, as scaling with smoothing
/// leaves them.
pub(super) fn smoothed_numbers(totals: &Totals, faults: &mut Faults) {
    let known = || totals.values.iter().filter(|(value, _)| totals.map.class_of(**value).is_some());
    let rims = rims(known().map(|(value, sum)| (*value, sum.pixels, sum.between)));
    if rims.is_empty() {
        return;
    }
    let what = "values of classes or ignored ones that lie between those on both sides nearly wherever they occur, as scaling \
                with smoothing leaves them";
    let remedy = "export the masks again, or scale them with nearest, and describe them anew";
    let fault = Fault::new(Severity::Warning, "smoothed-values", what, remedy).unit("value");
    let examples = known().filter(|(value, _)| rims.contains(value));
    let example = |(value, sum): (&Source, &ValueTotals)| Example::file(&sum.first).at(sum.at).value(*value);
    faults.add_many(fault, rims.len(), examples.take(SHOWN).map(example));
}
