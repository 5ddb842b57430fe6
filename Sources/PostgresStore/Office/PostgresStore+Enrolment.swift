package import HubEngine

/// Who becomes a member (head).
extension PostgresStore {
  package func enrol(
    office: String, secret: [UInt8], nonce: Int64, incarnation: Int64
  ) async throws(HubError) -> EnrolOutcome {
    try await control.run { session in
      try session.transaction { session -> EnrolOutcome in
        guard let invite = try Invite(session, secret) else { return .refused("head does not know it") }
        let known = try session.query(
          """
          SELECT residue, incarnation FROM hub.peer WHERE office = \(office) AND state IN ('active', 'joining')
            AND incarnation IS NOT NULL
          """)
        let isSame = known.count > 0 && known.integer(0, 1) == incarnation
        // Asked again, because the answer was lost, or by a database that had been cut while it joined.
        let isAgain = isSame && invite.covers(office) || invite.nonce == nonce && invite.office == office
        if !isAgain, let why = try invite.refusal(of: office, isTaken: known.count > 0, session) {
          return .refused(why)
        }
        guard let residue = try Self.residue(of: office, session) else {
          return .refused("head has given every class of keys to a branch: hub remove those that are gone")
        }
        try session.query(
          """
          UPDATE hub.invite SET used_at = now(), used_nonce = \(nonce)::bigint,
            uses = uses + \(isAgain ? 0 : 1)::int WHERE id = \(invite.id)
          """)
        try Self.adopt(session, office, incarnation: incarnation, residue: residue)
        return .accepted(residue: residue)
      }
    }
  }

  private static func adopt(_ session: Session, _ office: String, incarnation: Int64, residue: Int) throws {
    try session.query(
      """
      INSERT INTO hub.peer (office, state, residue, incarnation) VALUES (\(office), 'joining', \(residue), \(incarnation))
      ON CONFLICT (office) DO UPDATE SET state = 'joining', incarnation = EXCLUDED.incarnation,
        residue = EXCLUDED.residue, session = NULL, at_number = 0, at_id = 0, catch_from_number = NULL,
        unsettled_until = NULL, acked_number = 0, acked_id = 0, purge_number = 0, joined_at = now()
      WHERE hub.peer.incarnation IS DISTINCT FROM EXCLUDED.incarnation OR hub.peer.state IN ('invited', 'removed')
      """)
  }

  /// What an office of this name had before, or a free class of keys.
  private static func residue(of office: String, _ session: Session) throws -> Int? {
    let kept = try session.query("SELECT residue FROM hub.peer WHERE office = \(office) AND residue > 0")
    return try kept.count > 0 ? kept.int(0, 0) : freeResidue(session)
  }

  /// A class of keys for a new branch: one that nobody had, else that of the branch removed which was heard of the
  /// longest ago. Should that one join again, it gets another.
  private static func freeResidue(_ session: Session) throws -> Int? {
    let stride = try stride(session)
    let next = try session.query("SELECT coalesce(max(residue), 0) + 1 FROM hub.peer").int(0, 0)
    if next < stride { return next }
    let removed = try session.query(
      """
      WITH longest AS (SELECT office, residue FROM hub.peer WHERE state = 'removed' AND residue > 0
        ORDER BY coalesce(last_seen, joined_at), office LIMIT 1)
      UPDATE hub.peer p SET residue = 0 FROM longest WHERE p.office = longest.office RETURNING longest.residue
      """)
    return removed.count > 0 ? removed.int(0, 0) : nil
  }
}

/// A token as head keeps it, locked: two that enrol with it at once come one after the other.
private struct Invite {
  var id: Int64
  var office: String
  var isReusable: Bool
  /// Of the last enrolment with a token for one office.
  var nonce: Int64?
  var isExpired: Bool
  var isRevoked: Bool
  var isUsedUp: Bool

  /// nil: no token has this secret.
  init?(_ session: Session, _ secret: [UInt8]) throws {
    let rows = try session.query(
      """
      SELECT id, office, reusable, used_nonce, expires_at <= now(), revoked_at IS NOT NULL,
        coalesce(CASE WHEN reusable THEN uses >= uses_max ELSE used_at IS NOT NULL END, false)
      FROM hub.invite WHERE secret_digest = sha256(\(binary: secret)) FOR UPDATE
      """)
    guard rows.count > 0 else { return nil }
    id = rows.int64(0, 0)
    office = rows.text(0, 1)
    isReusable = rows.bool(0, 2)
    nonce = isReusable ? nil : rows.integer(0, 3)
    isExpired = rows.bool(0, 4)
    isRevoked = rows.bool(0, 5)
    isUsedUp = rows.bool(0, 6)
  }

  /// Whether a name is one that the token is for.
  func covers(_ name: String) -> Bool { name == office || isReusable && name.hasPrefix(office + "-") }

  /// Why an office does not become a member by it.
  func refusal(of name: String, isTaken: Bool, _ session: Session) throws -> String? {
    if isRevoked { return "it was revoked" }
    if isExpired { return "it has expired" }
    if isUsedUp { return "it was used already" }
    if !covers(name) {
      return isReusable
        ? "it is for names that begin with \(office)-, not for \(name)" : "it is for \(office), not for \(name)"
    }
    if isTaken { return "there is an office \(name) already" }
    let reserved = try session.query(
      """
      SELECT EXISTS (SELECT FROM hub.office WHERE name = \(name)),
        EXISTS (SELECT FROM hub.invite WHERE office = \(name) AND id <> \(id) AND \(unsafe: Invitations.pending))
      """)
    if reserved.bool(0, 0) { return "\(name) is head's own name" }
    return reserved.bool(0, 1) ? "the name \(name) is kept for who has another token" : nil
  }
}
