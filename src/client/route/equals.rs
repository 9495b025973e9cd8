//! A connection where several members take writes (`role = any`).

use std::sync::Arc;

use super::super::{Client, ClientError, again::Again};
use crate::{
    pool::Patience,
    routing::MemberId,
    server::{Idle, ServerConnection},
};

/// Members that take writes and are tried for a request before it waits for one.
const EQUALS_TRIED: usize = 4;

impl Client {
    /// A connection to one of several members that take writes, to another one where the first cannot be reached; where none
    /// can, the request waits as for a primary.
    pub(super) async fn check_out_equal(
        &mut self,
        wanted: Option<u64>,
    ) -> Result<Option<(MemberId, ServerConnection<Idle>)>, ClientError> {
        // All become known together.
        if self.session.database.primary().is_none() && Box::pin(self.wait_for_primary()).await?.is_none() {
            return Ok(None);
        }
        // Where one connection was cut others may be about to be; a new one shows whether the member has failed.
        let reopened = match self.again {
            Again::Second(_) => self.context.clock.now(),
            _ => 0,
        };
        let mut avoid = None;
        for _ in 0..EQUALS_TRIED {
            let placed = if self.has_waited { self.context.clock.now() } else { self.request_started };
            let Some(member) = self.view().writer(avoid, placed) else { break };
            avoid = Some(member);
            let since = self.session.database.real.defaults_since().max(reopened);
            let state = self.session.database.topology.member(member).map(|member| Arc::clone(&member.state));
            let Some(state) = state.filter(|state| state.admits(placed)) else { continue };
            let found = self.check_out(member, since, wanted, Patience::None).await;
            let (now, draw) = match &found {
                Ok(Some(_)) => (0, 0),
                _ => (self.context.clock.now(), self.draw.next()),
            };
            match found {
                Ok(Some(server)) => {
                    state.reached();
                    self.session.home = Some(member);
                    return Ok(Some((member, server)));
                }
                Err(ClientError::Checkout(error)) if error.is_servers_fault() => {
                    tracing::warn!(member = ?self.session.database.member_name(member), %error, "member not reached");
                    match error.concerns_everybody() {
                        true => state.not_reached(now, draw),
                        false => state.not_tried(now),
                    }
                }
                found => {
                    state.not_tried(now);
                    return Ok(found?.map(|server| (member, server)));
                }
            }
        }
        let found = self.check_out_sole(wanted).await?;
        self.session.home = found.as_ref().map(|(member, _)| *member).or(self.session.home);
        Ok(found)
    }
}
