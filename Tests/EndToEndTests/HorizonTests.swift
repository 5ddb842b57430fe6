import Foundation
import Testing

extension EndToEnd {
  /// Deleted rows are remembered as long as somebody may not know, and no longer.
  @Suite(.serialized)
  struct HorizonTests {
    static let schema = """
      CREATE TABLE item (id int PRIMARY KEY, v text);
      CREATE TABLE part (id int PRIMARY KEY, item int REFERENCES item, v text);
      INSERT INTO item SELECT g, 'first' FROM generate_series(1, 3000) g;
      INSERT INTO part VALUES (1, 2999, 'keeps')
      """
    static let tracks = [["item"], ["part"]]
    private static let tombstones = "SELECT count(*) FROM hub.v1 WHERE NOT alive"

    private func prompt(_ company: Company) throws {
      company.head.murder()
      try company.head.start("--keep-deleted", "0")
    }

    /// A branch that is written to tells at once what it has applied.
    private func tell(_ offices: [Office]) throws {
      for office in offices { try office.run("UPDATE part SET v = v || '\(office.name)' WHERE id = 1") }
    }

    /// Branches tell when they are written to, else once a minute.
    private func forgets(_ offices: [Office], telling branches: [Office]) throws {
      for office in offices {
        try until(150, "\(office.name) forgets", every: 3) {
          try tell(branches)
          return try office.connect().value(Self.tombstones) == "0"
        }
      }
    }

    private func horizon(_ company: Company) throws -> [String: Any] {
      try #require(company.head.status()["horizon"] as? [String: Any])
    }

    @Test("tombstones go everywhere once every branch has them; keys are inserted anew; who is away holds them")
    func tombstonesGo() throws {
      try Company.with(branches: 2, schema: Self.schema, tracks: Self.tracks) { company in
        let (head, a, b) = (company.head, company["a"], company["b"])
        try prompt(company)
        try company.settle(["item", "part"])
        try head.run("DELETE FROM item WHERE id <= 1000")
        try a.run("DELETE FROM item WHERE id BETWEEN 1001 AND 2000")
        try company.settle(["item"])
        #expect(try head.connect().number(Self.tombstones) == 2000)
        try forgets(company.offices, telling: [a, b])
        #expect(try head.connect().number("SELECT count(*) FROM hub.i1") == 0, "images of rows that are forgotten")
        #expect(try (horizon(company)["purged"] as? Int ?? 0) > 0)
        // The keys are as if they had never been.
        try b.run("INSERT INTO item SELECT g, 'again' FROM generate_series(1, 1500) g")
        try company.eventually(a, "SELECT count(*) FROM item WHERE v = 'again'", is: "1500")
        try company.settle(["item", "part"])
        #expect(try head.connect().number("SELECT count(*) FROM hub.conflict WHERE table_name LIKE '%item'") == 0)
        // One that is away holds all.
        b.murder()
        try a.run("DELETE FROM item WHERE id <= 1500")
        try company.settle(["item"], offices: [head, a])
        try tell([a])
        try until(40, "a has told") { try horizon(company)["held_by"] as? [String] == ["b"] }
        #expect(try head.must("status").output.contains("held by b"))
        sleep(12)  // more than one round of the purge: nothing may go
        #expect(try head.connect().number(Self.tombstones) == 1500)
        try b.run("UPDATE item SET v = 'while away' WHERE id <= 10; UPDATE item SET v = 'stays' WHERE id > 2999")
        try b.start()
        // Its updates had not seen the deletes: they win, as always. Nothing else comes back.
        try company.eventually(a, "SELECT count(*) FROM item WHERE id <= 1500", is: "10")
        try company.settle(["item", "part"])
        // Removed, an office holds nothing.
        b.murder()
        try head.run("DELETE FROM item WHERE id <= 10")
        try company.settle(["item"], offices: [head, a])
        try tell([a])
        try until(40, "a has told") { try horizon(company)["held_by"] as? [String] == ["b"] }
        try head.must("remove", "b")
        try forgets([head, a], telling: [a])
      }
    }

    @Test("a branch put back from before deletes that are forgotten is refused, and joins again")
    func tooOldABackupIsRefused() throws {
      try Company.with(branches: 1, schema: Self.schema, tracks: Self.tracks) { company in
        let (head, a) = (company.head, company["a"])
        try prompt(company)
        try company.settle(["item", "part"])
        #expect(try a.stop() == 0, "\(a.daemon?.errorText ?? "")")
        let copy = try a.copy()
        try a.startAndWait()
        try head.run("DELETE FROM item WHERE id <= 1000")
        try company.settle(["item"])
        try forgets([head], telling: [a])
        a.murder()
        try a.putBack(copy)
        try a.run("INSERT INTO item VALUES (5000, 'after')")
        let program = try a.start()
        #expect(try program.wait(60) == 1)
        #expect(
          program.errorText.contains("forgotten") && program.errorText.contains("hub join"), "\(program.errorText)")
        #expect(try head.connect().number("SELECT count(*) FROM item") == 2000, "rows that head forgot came back")
        // As the message says; what was deleted comes back if it is kept, and goes if it is replaced.
        try head.must("remove", "a")
        try a.must("leave", "--force")
        try company.join(a, "--existing", "replace")
        try a.start()
        try company.settle(["item", "part"])
        #expect(try a.connect().number("SELECT count(*) FROM item") == 2000)
      }
    }
  }
}
