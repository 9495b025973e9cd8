//! Somebody listens to the primary itself.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use super::{
    checker::{Cell, Found, Read},
    session::Session,
    topology::Topology,
    world::{Shape, owner},
};

/// Hears of commits from the primary itself, and asks the proxy at once.
pub fn listen<'a>(mut session: Session<'a>, topology: &Topology<'_>, stop: &AtomicBool) -> Session<'a> {
    let mut listener = topology.cluster.primary.session(&topology.database);
    listener.rows("listen staleness");
    while !stop.load(Ordering::Relaxed) {
        if listener.is_silent_for(Duration::from_millis(50)) {
            continue;
        }
        let frame = listener.frame();
        let Some(payload) = notification(&frame.body).filter(|_| frame.tag == b'A') else { continue };
        let numbers: Vec<i64> = payload.split(' ').map(|number| number.parse().unwrap()).collect();
        let cell = Cell(u16::try_from(numbers[0]).unwrap());
        let now = session.now();
        let found = vec![(cell, Found::Row { version: numbers[1], writer: numbers[2] })];
        let shows = |shape: &Shape| shape.family == owner(cell).0 && !shape.by_key;
        let Some(number) = session.shared.plan.shapes.iter().position(shows) else { continue };
        session.history.reads.push(Read {
            session: session.number,
            // It may have been on its way for long: it tells nothing but that this has been.
            began: 0,
            ended: now,
            shape: number as u16,
            found,
        });
        let _lost = session.client().is_ok() && session.read_shape(number).is_ok();
    }
    session
}

/// The payload of a NotificationResponse.
fn notification(body: &[u8]) -> Option<String> {
    let rest = body.get(4..)?.splitn(2, |byte| *byte == 0).nth(1)?;
    String::from_utf8(rest.strip_suffix(&[0])?.to_vec()).ok()
}
