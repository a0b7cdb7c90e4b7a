//! Operations before and after the network: normalisation, the resize to image size, labels.

use crate::error::Result;
use crate::export::graph::{Attribute, Data, Dim, Graph, Id, Kind};
use crate::export::lower::Lowered;
use crate::export::options::Profile;
use crate::loader::preprocess::Preprocess;

/// What the masks' votes are called in files that give them.
pub(super) const VOTES: &str = "votes";

/// What class scores at image size are called in every file that has them, whatever it gives.
pub(super) fn scores_name(profile: Profile) -> &'static str {
    if profile.output() == "logits" { "logits" } else { "scores" }
}

/// The network with its ends.
///
/// # Errors
/// None is known.
pub(super) fn attach(lowered: Lowered, preprocess: &Preprocess, size: [usize; 2], profile: Profile) -> Result<Graph> {
    let Lowered { mut graph, image, maps, votes } = lowered;
    before(&mut graph, image, preprocess, size, profile);
    if profile == Profile::Web {
        graph.values[maps].name = Some(profile.output().to_owned());
        graph.outputs = vec![maps];
        if let Some(votes) = votes {
            graph.values[votes].name = Some(VOTES.to_owned());
            graph.outputs.push(votes);
        }
        return Ok(graph);
    }
    let scores = scores(&mut graph, maps, votes, size)?;
    let output = match profile {
        Profile::Default | Profile::Triton => labels(&mut graph, scores),
        Profile::Logits | Profile::Hf | Profile::Web => scores,
        Profile::Qgis => probabilities(&mut graph, scores, votes.is_some()),
    };
    graph.values[scores].name = Some(scores_name(profile).to_owned());
    graph.values[output].name = Some(profile.output().to_owned());
    graph.outputs = vec![output];
    Ok(graph)
}

/// Bytes become what the network reads; floats are that already.
fn before(graph: &mut Graph, image: Id, preprocess: &Preprocess, size: [usize; 2], profile: Profile) {
    if !profile.takes_bytes() {
        graph.values[image].name = Some(profile.input().to_owned());
        return;
    }
    graph.values[image].name = None;
    let network = std::mem::take(&mut graph.nodes);
    graph.inputs.clear();
    let sides = [Dim::Batch(1), Dim::Fixed(size[0]), Dim::Fixed(size[1]), Dim::Fixed(3)];
    let bytes = graph.input(profile.input(), sides.to_vec(), Kind::Byte);
    let floats = graph.node("Cast", &[bytes], vec![("to", Attribute::Int(Kind::Float.code()))], &sides, Kind::Float);
    let planes = graph.transpose(floats, &[0, 3, 1, 2]);
    let channels = |values: [f32; 3]| Data::Float(values.to_vec());
    let mean = graph.constant(&[1, 3, 1, 1], channels(preprocess.mean), "preprocess".to_owned());
    let factor = graph.constant(&[1, 3, 1, 1], channels(preprocess.std.map(|s| 1.0 / s)), "preprocess".to_owned());
    let centred = graph.same("Sub", &[planes, mean], Vec::new());
    let scaled = graph.same("Mul", &[centred, factor], Vec::new());
    // The last node gives what the network reads.
    graph.values[image].layer = graph.values[scaled].layer.clone();
    if let Some(last) = graph.nodes.last_mut() {
        last.output = image;
    }
    graph.nodes.extend(network);
}

/// Class scores `[b, k, height, width]`: maps at image size, and where masks vote, the sum of their votes.
fn scores(graph: &mut Graph, maps: Id, votes: Option<Id>, [height, width]: [usize; 2]) -> Result<Id> {
    let planes = graph.transpose(maps, &[0, 3, 1, 2]); // [b, c, h, w]
    let planes = resize(graph, planes, [height, width], Sampling::Linear);
    let Some(votes) = votes else { return Ok(planes) };
    let [batch, channels] = [graph.shape(planes)[0], graph.shape(planes)[1]];
    let classes = graph.shape(votes)[2];
    let masks = graph.same("Sigmoid", &[planes], Vec::new());
    let masks = graph.reshape(masks, &[batch, channels, Dim::Fixed(height * width)])?;
    let votes = graph.transpose(votes, &[0, 2, 1]); // [b, k, c]
    let shape = [batch, classes, Dim::Fixed(height * width)];
    let sums = graph.node("MatMul", &[votes, masks], Vec::new(), &shape, Kind::Float);
    graph.reshape(sums, &[batch, classes, Dim::Fixed(height), Dim::Fixed(width)])
}

/// How a value between samples is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sampling {
    /// Linear between two neighbours, corners not aligned.
    Linear,
    /// The sample at `floor(i * in / out)`.
    Nearest,
}

/// Planes `[b, c, h, w]` in another size.
pub(super) fn resize(graph: &mut Graph, planes: Id, [height, width]: [usize; 2], sampling: Sampling) -> Id {
    let shape = graph.shape(planes).to_vec();
    let (Dim::Fixed(h), Dim::Fixed(w)) = (shape[2], shape[3]) else { return planes };
    if (h, w) == (height, width) {
        return planes;
    }
    let regions = graph.constant(&[0], Data::Float(Vec::new()), String::new());
    let factors = vec![1.0, 1.0, factor(h, height), factor(w, width)];
    let factors = graph.constant(&[4], Data::Float(factors), String::new());
    let (place, mode) = match sampling {
        Sampling::Linear => ("half_pixel", "linear"),
        Sampling::Nearest => ("asymmetric", "nearest"),
    };
    let attributes = vec![
        ("coordinate_transformation_mode", Attribute::Text(place)),
        ("mode", Attribute::Text(mode)),
        ("nearest_mode", Attribute::Text("floor")),
    ];
    let shape = [shape[0], shape[1], Dim::Fixed(height), Dim::Fixed(width)];
    graph.node("Resize", &[planes, regions, factors], attributes, &shape, Kind::Float)
}

/// The factor from one side to another, so that its product, rounded down, is that side in single and in double
/// precision.
pub(super) fn factor(from: usize, to: usize) -> f32 {
    let factor = to as f32 / from as f32;
    if from as f64 * f64::from(factor) < to as f64 { factor.next_up() } else { factor }
}

fn labels(graph: &mut Graph, scores: Id) -> Id {
    let shape = graph.shape(scores).to_vec();
    let sides = [shape[0], shape[2], shape[3]];
    let attributes = vec![("axis", Attribute::Int(1)), ("keepdims", Attribute::Int(0))];
    let classes = graph.node("ArgMax", &[scores], attributes, &sides, Kind::Int);
    graph.node("Cast", &[classes], vec![("to", Attribute::Int(Kind::Byte.code()))], &sides, Kind::Byte)
}

/// The softmax of logits; of votes, their shares of the sum.
fn probabilities(graph: &mut Graph, scores: Id, votes: bool) -> Id {
    if !votes {
        return graph.same("Softmax", &[scores], vec![("axis", Attribute::Int(1))]);
    }
    let mut shape = graph.shape(scores).to_vec();
    shape[1] = Dim::Fixed(1);
    let inputs = [scores, graph.ints(&[1])];
    let sum = graph.node("ReduceSum", &inputs, vec![("keepdims", Attribute::Int(1))], &shape, Kind::Float);
    let least = graph.scalar(f32::MIN_POSITIVE);
    let sum = graph.same("Max", &[sum, least], Vec::new());
    graph.same("Div", &[scores, sum], Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_give_the_very_side() {
        for (from, to) in (1..200).flat_map(|from| (1..200).map(move |to| (from, to))) {
            let factor = factor(from, to);
            assert_eq!((from as f32 * factor).floor() as usize, to, "{from} to {to}");
            assert_eq!((from as f64 * f64::from(factor)).floor() as usize, to, "{from} to {to}");
        }
    }
}
