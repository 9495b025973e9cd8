//! Breadth first, so that the trace of a violation is a shortest one.

use std::{collections::HashSet, fmt::Write};

use crate::{
    rules::Rules,
    state::State,
    steps::{Step, Steps},
};

pub(crate) enum Outcome {
    /// Every state that can be reached keeps the promise.
    Holds { states: usize },
    /// These steps lead to a broken promise.
    Broken { trace: String },
}

struct Reached {
    state: State,
    /// The place of the state before, and the step from there.
    by: Option<(usize, Step)>,
}

pub(crate) fn search(rules: &Rules) -> Outcome {
    let start = State::default();
    let mut seen = HashSet::from([start]);
    let mut reached = vec![Reached { state: start, by: None }];
    let mut at = 0;
    while let Some(Reached { state, .. }) = reached.get(at) {
        let steps = Steps::from(rules, *state);
        if let Some(violation) = steps.violation {
            return Outcome::Broken { trace: trace(&reached, at, violation.0) };
        }
        for (step, state) in steps.next {
            if seen.insert(state) {
                reached.push(Reached { state, by: Some((at, step)) });
            }
        }
        at += 1;
    }
    Outcome::Holds { states: reached.len() }
}

fn trace(reached: &[Reached], mut at: usize, last: Step) -> String {
    let mut steps = vec![last];
    while let Some((before, step)) = reached[at].by {
        steps.push(step);
        at = before;
    }
    let mut text = format!("after {} states:", reached.len());
    for step in steps.iter().rev() {
        write!(text, " {step:?}").unwrap();
    }
    text
}
