import Foundation
import Testing

extension EndToEnd {
  /// A hundred conflicts, written down with what becomes of each: the table of the documentation's page Conflicts.
  @Suite(.serialized)
  struct HundredConflictsTests {
    private enum Kind: String, CaseIterable {
      case updates, updatesHeadLater, inserts, insertsHeadLater, updateOfDeleted, deleteOfUpdated

      var isHeadLater: Bool { self == .updatesHeadLater || self == .insertsHeadLater }

      /// PostgreSQL's name.
      var type: String {
        switch self {
        case .updates, .updatesHeadLater: "update_origin_differs"
        case .inserts, .insertsHeadLater: "insert_exists"
        case .updateOfDeleted: "update_deleted"
        case .deleteOfUpdated: "delete_origin_differs"
        }
      }
    }

    /// One way to track a table.
    private struct Way {
      var policy: String
      var onDelete: String
      var merge: String

      static let all = ["latest", "head", "branch", "function:public.greatest_value"].flatMap { policy in
        ["update", "delete"].flatMap { onDelete in
          ["row", "columns"].map { Way(policy: policy, onDelete: onDelete, merge: $0) }
        }
      }

      var table: String { "\(policy.split(separator: ":")[0])_\(onDelete)_\(merge)" }
      var track: [String] { [table, "--on-conflict", policy, "--on-delete", onDelete, "--merge", merge] }

      /// The value that stands; nil: deleted.
      func outcome(_ kind: Kind) -> String? {
        switch kind {
        case .updateOfDeleted: return onDelete == "update" ? value(kind, "branch") : nil
        case .deleteOfUpdated: return onDelete == "update" ? value(kind, "head") : nil
        default: break
        }
        switch policy {
        case "latest": return value(kind, kind.isHeadLater ? "head" : "branch")
        case "head", "branch": return value(kind, policy)
        default: return max(value(kind, "head"), value(kind, "branch"))
        }
      }

      /// What each side writes: the greater of the two is the earlier one's, so that no policy agrees with another by chance.
      func value(_ kind: Kind, _ side: String) -> String {
        "\((side == "head") == kind.isHeadLater ? 1 : 2) of \(side)"
      }
    }

    private static let schema =
      Way.all.map { way in
        """
        CREATE TABLE \(way.table) (id text PRIMARY KEY, v text, note text DEFAULT 'n');
        INSERT INTO \(way.table) SELECT s, 'start' FROM unnest('{updates,updatesHeadLater,updateOfDeleted,deleteOfUpdated}'::text[]) s;
        """
      }.joined() + """
        CREATE FUNCTION greatest_value(local jsonb, incoming jsonb) RETURNS jsonb LANGUAGE sql AS
          $$ SELECT CASE WHEN (local ->> 'v') >= (incoming ->> 'v') THEN local ELSE incoming END $$;
        CREATE TABLE parent (id text PRIMARY KEY, v text);
        CREATE TABLE child (id text PRIMARY KEY, parent text NOT NULL REFERENCES parent);
        INSERT INTO parent VALUES ('referenced', 'start'), ('missed', 'start'), ('a-b', 'start'), ('b-a', 'start');
        """

    private func statement(_ way: Way, _ kind: Kind, _ side: String) -> String {
      let (table, value) = (way.table, way.value(kind, side))
      switch kind {
      case .inserts, .insertsHeadLater: return "INSERT INTO \(table) VALUES ('\(kind)', '\(value)');"
      case .updateOfDeleted where side == "head", .deleteOfUpdated where side == "branch":
        return "DELETE FROM \(table) WHERE id = '\(kind)';"
      default: return "UPDATE \(table) SET v = '\(value)' WHERE id = '\(kind)';"
      }
    }

    /// Everything is written while no office hears of another.
    private func write(_ head: Office, _ a: Office, _ b: Office) throws {
      let cases = Way.all.flatMap { way in Kind.allCases.map { (way, $0) } }
      func run(_ office: Office, _ side: String, _ chosen: (Kind) -> Bool) throws {
        try office.run(cases.filter { chosen($0.1) }.map { statement($0.0, $0.1, side) }.joined())
        usleep(20_000)
      }
      try run(a, "branch") { $0.isHeadLater }
      try run(head, "head") { _ in true }
      try run(a, "branch") { !$0.isHeadLater }
      try head.run("DELETE FROM parent WHERE id = 'referenced'; INSERT INTO child VALUES ('of head', 'missed')")
      try a.run("INSERT INTO child VALUES ('of a', 'referenced'); DELETE FROM parent WHERE id = 'missed'")
      try b.run("UPDATE parent SET v = 'b' WHERE id = 'b-a'")
      usleep(20_000)
      try a.run("UPDATE parent SET v = 'a' WHERE id IN ('a-b', 'b-a')")
      usleep(20_000)
      try b.run("UPDATE parent SET v = 'b' WHERE id = 'a-b'")
    }

    private struct Entry {
      var id: Int
      var name: String
      var type: String
      var policy: String
      var winner: [String: Any]
      var loser: [String: Any]
      var isHeadTheWinner: Bool

      init(_ json: [String: Any]) throws {
        let key = json["key"] as? [String: Any]
        guard let id = json["id"] as? Int, let table = json["table"] as? String, let row = key?["id"] as? String,
          let type = json["type"] as? String, let policy = json["policy"] as? String,
          let winner = json["winner"] as? [String: Any], let loser = json["loser"] as? [String: Any]
        else { throw Failed("no whole entry: \(json)") }
        self.id = id
        name = table.replacingOccurrences(of: "public.", with: "") + " " + row
        (self.type, self.policy, self.winner, self.loser) = (type, policy, winner, loser)
        isHeadTheWinner = json["head_copy"] as? String == "winner"
      }

      static func value(_ side: [String: Any]) -> String? { (side["row"] as? [String: Any])?["v"] as? String }
    }

    private func entries(_ office: Office) throws -> [Entry] {
      let list = try office.must("conflicts", "list", "--json").json() as? [[String: Any]] ?? []
      return try list.map(Entry.init)
    }

    private func standing(_ office: Office, _ name: String) throws -> String? {
      let parts = name.split(separator: " ")
      return try office.connect().run("SELECT v FROM \(parts[0]) WHERE id = '\(parts[1])'").first?.first ?? nil
    }

    @Test("a hundred conflicts, every type by every policy: the documented outcome, one entry each; ten reversed")
    func everyTypeByEveryPolicy() throws {
      let tracks = Way.all.map(\.track) + [["parent"], ["child"]]
      try Company.with(branches: 2, schema: Self.schema, tracks: tracks) { company in
        let (head, a, b) = (company.head, company["a"], company["b"])
        let tables = tracks.map { $0[0] }
        try company.settle(tables)
        for office in company.offices { #expect(try office.stop() == 0) }
        try write(head, a, b)
        for office in company.offices { try office.startAndWait() }
        for office in company.offices { try office.must("sync", "--timeout", "60s") }
        try company.settle(tables)

        let found = try entries(head)
        #expect(found.count == 100)
        let byName = Dictionary(grouping: found, by: \.name)
        #expect(byName.values.allSatisfy { $0.count == 1 }, "one entry each")
        for way in Way.all {
          for kind in Kind.allCases {
            let name = "\(way.table) \(kind)"
            let stands = try standing(b, name)
            #expect(stands == way.outcome(kind), "\(name)")
            guard let entry = byName[name]?.first else {
              Issue.record("no entry: \(name)")
              continue
            }
            #expect(entry.type == kind.type, "\(name)")
            #expect(entry.policy == way.policy, "\(name)")
            let written = ["head", "branch"].map {
              statement(way, kind, $0).hasPrefix("DELETE") ? nil : way.value(kind, $0)
            }
            let kept = entry.isHeadTheWinner ? [entry.winner, entry.loser] : [entry.loser, entry.winner]
            #expect(kept.map(Entry.value) == written, "\(name): both rows")
            #expect(kept.map { $0["office"] as? String } == ["head", "a"], "\(name)")
            #expect(Entry.value(entry.winner) == stands, "\(name): the winner stands")
            for side in kept where side["row"] is [String: Any] {
              #expect((side["row"] as? [String: Any])?["note"] as? String == "n", "\(name): rows in full")
            }
            #expect(kept.allSatisfy { $0["vector"] != nil && $0["stamp"] != nil }, "\(name)")
          }
        }
        let others = ["parent referenced": "start", "parent missed": "start", "parent a-b": "b", "parent b-a": "a"]
        for (name, value) in others {
          #expect(try standing(b, name) == value, "\(name)")
          #expect(byName[name]?.count == 1, "\(name)")
        }
        try reverseTen(company, found, tables)
      }
    }

    /// Ten decisions of every kind end the other way, everywhere, and raise no new conflict.
    private func reverseTen(_ company: Company, _ found: [Entry], _ tables: [String]) throws {
      let decided = found.filter { !$0.name.hasPrefix("parent") }.sorted { $0.name < $1.name }
      let chosen = stride(from: 0, to: decided.count, by: 11).map { decided[$0] } + [decided[decided.count - 1]]
      #expect(chosen.count == 10 && Set(chosen.map(\.type)).count == 4)
      for entry in chosen {
        try company.head.must(
          "conflicts", "resolve", "\(entry.id)", "--keep", entry.isHeadTheWinner ? "branch" : "head")
      }
      for office in company.offices { try office.must("sync", "--timeout", "60s") }
      try company.settle(tables)
      for entry in chosen {
        for office in company.offices {
          #expect(try standing(office, entry.name) == Entry.value(entry.loser), "\(entry.name) at \(office.name)")
        }
      }
      #expect(try entries(company.head).count == 100, "no new conflict")
    }
  }
}
