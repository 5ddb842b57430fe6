import HubEngine
import Testing

@testable import PostgresStore

/// Who belongs to head, as its database has it.
@Suite struct MembersTests {
  /// Believed: a class of keys belongs to a name for ever. The thousandth branch, counted with all that were ever
  /// removed, could not join, and was told of residues.
  @Test func theKeysOfABranchLongRemovedGoToTheNextWhenNoneIsLeft() async throws {
    let head = try Office("head", cluster: 1)
    try head.hub.script(
      """
      INSERT INTO hub.setting VALUES ('key_stride', '5')
        ON CONFLICT (name) DO UPDATE SET value = EXCLUDED.value;
      INSERT INTO hub.peer (office, state, residue, last_seen) VALUES
        ('a', 'active', 1, now()), ('b', 'removed', 2, now() - interval '1 day'),
        ('c', 'removed', 3, now() - interval '9 days');
      """)
    let store = PostgresStore(url: head.database.url, coder: Drawer.coder)
    func enrol(_ office: String) async throws -> EnrolOutcome {
      let secret = [UInt8](office.utf8)
      try head.hub.query(
        """
        INSERT INTO hub.invite (office, secret_digest, expires_at)
        VALUES (\(office), sha256(\(binary: secret)), now() + interval '1 day')
        """)
      return try await store.enrol(office: office, secret: secret, nonce: 1, incarnation: 9)
    }
    #expect(try await enrol("d") == .accepted(residue: 4))
    #expect(try await enrol("e") == .accepted(residue: 3), "the longest gone")
    #expect(try await enrol("c") == .accepted(residue: 2), "its own went to e")
    guard case .refused(let why) = try await enrol("f") else {
      Issue.record("five classes of keys for six offices")
      return
    }
    #expect(why.contains("hub remove"))
    #expect(
      try head.hub.query("SELECT count(DISTINCT residue) FROM hub.peer WHERE state <> 'removed'").int(0, 0) == 4)
    await store.close()
  }

  /// Head's store, and a token for names that begin with `shop`.
  private func withToken(
    usesMax: Int? = nil, _ body: (Session, (String, Int64, Int64) async throws -> String) async throws -> Void
  ) async throws {
    let head = try Office("head", cluster: 1)
    let store = PostgresStore(url: head.database.url, coder: Drawer.coder)
    let secret = [UInt8]("a secret of shops".utf8)
    try head.hub.script("INSERT INTO hub.setting VALUES ('key_stride', '1000') ON CONFLICT DO NOTHING")
    try Invitations.addReusable(head.hub, prefix: "shop", secret: secret, seconds: 86_400, usesMax: usesMax)
    try await body(head.hub) { name, nonce, incarnation in
      switch try await store.enrol(office: name, secret: secret, nonce: nonce, incarnation: incarnation) {
      case .accepted(let residue): "residue \(residue)"
      case .refused(let why): why
      }
    }
    await store.close()
  }

  @Test func aReusableTokenMakesEachOfItsNamesOneOffice() async throws {
    try await withToken { _, enrol async throws in
      #expect(try await enrol("shop-1", 11, 1) == "residue 1")
      #expect(try await enrol("shop-2", 12, 2) == "residue 2")
      #expect(try await enrol("shop", 13, 3) == "residue 3")
      #expect(try await enrol("shop-1", 11, 1) == "residue 1", "the answer was lost")
      #expect(try await enrol("shop-1", 99, 1) == "residue 1", "the same database, joining anew")
      #expect(try await enrol("shop-2", 12, 7) == "there is an office shop-2 already", "a nonce proves nothing")
      #expect(try await enrol("shops-3", 14, 4).contains("begin with shop-"))
      #expect(try await enrol("head", 14, 4).contains("begin with shop-"))
    }
  }

  @Test func aReusableTokenCountsTheOfficesThatItMade() async throws {
    try await withToken(usesMax: 2) { session, enrol async throws in
      #expect(try await enrol("shop-1", 11, 1) == "residue 1")
      #expect(try await enrol("shop-1", 11, 1) == "residue 1")
      #expect(try await enrol("shop-1", 12, 2) == "there is an office shop-1 already")
      #expect(try await enrol("shop-2", 12, 2) == "residue 2")
      #expect(try await enrol("shop-3", 13, 3) == "it was used already")
      #expect(try await enrol("shop-2", 12, 2) == "residue 2", "who is a member is told so")
      #expect(try Invitations.list(session).map(\.state) == ["used"])
    }
  }

  @Test func aTokenThatWasRevokedOrHasExpiredMakesNoOffice() async throws {
    try await withToken { session, enrol async throws in
      #expect(try await enrol("shop-1", 11, 1) == "residue 1")
      #expect(try Invitations.revoke(session, "shop") == 1)
      #expect(try await enrol("shop-2", 12, 2) == "it was revoked")
      #expect(throws: HubError.self, "a revoked secret does not come back") {
        try Invitations.addReusable(
          session, prefix: "shop", secret: [UInt8]("a secret of shops".utf8), seconds: 86_400, usesMax: nil)
      }
    }
    try await withToken { session, enrol async throws in
      try session.script("UPDATE hub.invite SET expires_at = now()")
      #expect(try await enrol("shop-1", 11, 1) == "it has expired")
    }
  }

  @Test func aNameForWhichAnotherTokenWaitsIsNotTaken() async throws {
    try await withToken { session, enrol async throws in
      try Invitations.add(session, "shop-1", secret: [UInt8]("another secret!!".utf8), seconds: 86_400)
      #expect(try await enrol("shop-1", 11, 1).contains("another token"))
      #expect(try await enrol("shop-2", 12, 2) == "residue 1")
    }
  }
}
