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
}
