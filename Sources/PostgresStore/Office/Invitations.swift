import HubEngine

/// The tokens that head has given out; of each the digest of its secret, never the secret.
package enum Invitations {
  /// Of the tokens for one office: those that somebody may still use. In SQL, over `hub.invite`.
  static let pending = "NOT reusable AND used_at IS NULL AND revoked_at IS NULL AND expires_at > now()"

  /// One token, for `hub invite --list`.
  package struct Entry: Sendable, Hashable {
    package var id: Int64
    /// The office's name; of a reusable one what the names begin with.
    package var office: String
    package var isReusable: Bool
    package var uses: Int
    package var usesMax: Int?
    /// `good`, `used`, `expired` or `revoked`.
    package var state: String
    package var expires: String
  }

  /// For one office. An earlier token of that name that nobody used is good no more.
  package static func add(_ session: Session, _ office: String, secret: [UInt8], seconds: Int) throws {
    let taken = try session.query(
      "SELECT EXISTS (SELECT FROM hub.peer WHERE office = \(office) AND state IN ('joining', 'active'))")
    if taken.bool(0, 0) {
      throw HubError(
        .refused, "there is a branch \(office) already", hint: "choose another name, or hub remove \(office) first")
    }
    try session.query("DELETE FROM hub.invite WHERE office = \(office) AND NOT reusable AND used_at IS NULL")
    try session.query(
      """
      INSERT INTO hub.invite (office, secret_digest, expires_at)
      VALUES (\(office), sha256(\(binary: secret)), now() + \(seconds)::int * interval '1 second')
      """)
  }

  /// For any number of offices, or `usesMax`, called `prefix` or `prefix-…`. The same secret again renews its expiry.
  package static func addReusable(
    _ session: Session, prefix: String, secret: [UInt8], seconds: Int, usesMax: Int?
  ) throws {
    let stored = try session.query(
      """
      INSERT INTO hub.invite AS i (office, secret_digest, expires_at, reusable, uses_max)
      VALUES (\(prefix), sha256(\(binary: secret)), now() + \(seconds)::int * interval '1 second', true,
        \(usesMax.map { "\($0)" })::int)
      ON CONFLICT (secret_digest) DO UPDATE SET expires_at = EXCLUDED.expires_at, uses_max = EXCLUDED.uses_max
        WHERE i.reusable AND i.office = EXCLUDED.office AND i.revoked_at IS NULL
      RETURNING id
      """)
    guard stored.count > 0 else {
      throw HubError(
        .refused, "this secret was revoked, or belongs to a token of another name", hint: "give a new secret")
    }
  }

  /// Nobody enrols with the tokens of this name any more; who did stays a member. Returns how many there were.
  package static func revoke(_ session: Session, _ office: String) throws -> Int {
    try session.query(
      """
      UPDATE hub.invite SET revoked_at = now()
      WHERE office = \(office) AND revoked_at IS NULL AND (reusable OR used_at IS NULL) RETURNING id
      """
    ).count
  }

  package static func list(_ session: Session) throws -> [Entry] {
    let rows = try session.query(
      """
      SELECT id, office, reusable, uses, uses_max, to_char(expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
        CASE WHEN revoked_at IS NOT NULL THEN 'revoked' WHEN NOT reusable AND used_at IS NOT NULL OR uses >= uses_max
          THEN 'used' WHEN expires_at <= now() THEN 'expired' ELSE 'good' END
      FROM hub.invite ORDER BY office, id
      """)
    return (0..<rows.count).map { i in
      Entry(
        id: rows.int64(i, 0), office: rows.text(i, 1), isReusable: rows.bool(i, 2), uses: rows.int(i, 3),
        usesMax: rows.integer(i, 4).map { Int($0) }, state: rows.text(i, 6), expires: rows.text(i, 5))
    }
  }
}
