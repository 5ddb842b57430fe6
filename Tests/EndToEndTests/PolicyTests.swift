import Foundation
import Testing

extension EndToEnd {
  @Suite(.serialized)
  struct PolicyTests {
    @Test(
      "a function that tosses a coin settles conflicts and all offices end equal; where it fails, that row waits")
    func aCoinTossConverges() throws {
      let schema = """
        CREATE TABLE doc (id int PRIMARY KEY, v text NOT NULL);
        INSERT INTO doc SELECT g, 'start' FROM generate_series(1, 60) g;
        CREATE FUNCTION toss(local jsonb, incoming jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
        BEGIN
          IF (local ->> 'id')::int = 60 THEN RAISE EXCEPTION 'a coin on its edge' USING ERRCODE = 'ZZ060'; END IF;
          RETURN CASE floor(random() * 3) WHEN 0 THEN local WHEN 1 THEN incoming
            ELSE local || jsonb_build_object('v', concat(local ->> 'v', ' and ', incoming ->> 'v')) END;
        END $$;
        """
      let tracks = [["doc", "--on-conflict", "function:public.toss"]]
      try Company.with(branches: 2, schema: schema, tracks: tracks) { company in
        try company.settle(["doc"])
        for office in company.offices { #expect(try office.stop() == 0) }
        for office in company.offices { try office.run("UPDATE doc SET v = '\(office.name)' WHERE id < 60") }
        for branch in company.branches { try branch.run("UPDATE doc SET v = '\(branch.name)' WHERE id = 60") }
        for office in company.offices { try office.start() }
        try until(60, "all are equal but for the row that the function refuses") {
          let copies = try company.offices.map { try $0.connect().copy("SELECT * FROM doc WHERE id < 60 ORDER BY id") }
          return copies.allSatisfy { $0 == copies[0] }
        }
        let head = try company.head.connect()
        let kept = try head.run("SELECT v, count(*) FROM doc WHERE id < 60 GROUP BY 1 ORDER BY 1")
        say("a coin toss: \(kept)")
        #expect(kept.count > 1, "it decides row by row")
        #expect(try head.value("SELECT bool_and(v <> 'start') FROM doc WHERE id < 60") == "t")
        #expect(try head.number("SELECT count(DISTINCT key) FROM hub.conflict") == 59)
        #expect(
          try head.value("SELECT string_agg(DISTINCT policy || ' ' || reason, ',') FROM hub.conflict")
            == "function:public.toss function")
        #expect(try head.run("SELECT sqlstate, key ->> 'id' FROM hub.quarantine") == [["ZZ060", "60"]])
        // Mended, the last row goes in too.
        let mended = "CREATE OR REPLACE FUNCTION toss(local jsonb, incoming jsonb) RETURNS jsonb LANGUAGE sql"
        try head.run("\(mended) AS 'SELECT incoming'")
        try company.branches.first?.run("UPDATE doc SET v = v || '!' WHERE id = 1")
        try company.settle(["doc"])
        #expect(try head.number("SELECT count(*) FROM hub.quarantine") == 0)
      }
    }

    @Test("stock of 100, less 3 and less 5 at branches that are apart, is 92; counters bear kills, resends, a join")
    func stockCounts() throws {
      let schema = """
        CREATE TABLE stock (sku text PRIMARY KEY, place text, qty int NOT NULL, worth numeric(12,2) NOT NULL DEFAULT 0);
        INSERT INTO stock VALUES ('tea', 'shelf', 100, 10), ('mug', 'shelf', 0, 0);
        """
      let tracks = [["stock", "--counter", "qty", "--counter", "worth"]]
      try Company.with(branches: 2, schema: schema, tracks: tracks) { company in
        let (head, a, b) = (company.head, company["a"], company["b"])
        let listed = try head.must("tables", "--json").output
        #expect(listed.contains("\"counters\":[\"qty\",\"worth\"]"), "\(listed)")
        try company.settle(["stock"])
        for office in [a, b] { #expect(try office.stop() == 0) }
        try a.run("UPDATE stock SET qty = qty - 3 WHERE sku = 'tea'")
        try b.run("UPDATE stock SET qty = 95, worth = worth + 0.05 WHERE sku = 'tea'")
        for office in [a, b] { try office.start() }
        for office in company.offices {
          try company.eventually(office, "SELECT qty || ' ' || worth FROM stock WHERE sku = 'tea'", is: "92 10.05")
        }
        #expect(try head.connect().number("SELECT count(*) FROM hub.conflict") == 0)
        // Everybody counts while hubs are killed and the broker loses what it holds.
        var wanted = 0
        for office in company.offices { try office.run("CREATE TABLE mark (v int)") }
        let workers = company.offices.map { office in
          Worker { worker in
            let application = try office.connect()
            while !worker.isStopping {
              try application.run("UPDATE stock SET qty = qty + 1, worth = worth - 0.01 WHERE sku = 'mug'")
              try application.run("UPDATE stock SET qty = qty - 2, place = '\(office.name)' WHERE sku = 'mug'")
              try application.run("INSERT INTO mark VALUES (1)")
              usleep(3000)
            }
          }
        }
        defer { for worker in workers { try? worker.stop() } }
        for round in 0..<6 {
          usleep(400_000)
          let office = company.offices[round % 3]
          office.murder()
          if round == 3 { _ = try Broker.ctl(["-p", company.virtualHost, "purge_queue", "hub.head"]) }
          try office.start()
        }
        for worker in workers { try worker.stop() }
        for office in company.offices { wanted -= try office.connect().number("SELECT count(*) FROM mark") }
        say("counted \(-wanted) times at three offices")
        for office in company.offices {
          try company.eventually(office, "SELECT qty FROM stock WHERE sku = 'mug'", is: String(wanted), within: 60)
        }
        // Who joins later counts on.
        let late = try company.open("late", cluster: 4)
        try company.join(late)
        try late.start()
        try late.run("UPDATE stock SET qty = qty - 1 WHERE sku = 'tea'")
        try a.run("UPDATE stock SET qty = qty - 1 WHERE sku = 'tea'")
        for office in company.offices {
          try company.eventually(office, "SELECT qty FROM stock WHERE sku = 'tea'", is: "90")
        }
        try company.settle(["stock"])
        #expect(try company.offices.allSatisfy { try $0.connect().number("SELECT count(*) FROM hub.quarantine") == 0 })
      }
    }

    @Test("merged by column, what offices that were apart wrote to different columns survives everywhere")
    func columnsAreMerged() throws {
      let schema = """
        CREATE TABLE customer (id int PRIMARY KEY, name text, phone text, mail text, note text);
        INSERT INTO customer SELECT g, 'n', 'p', 'm', NULL FROM generate_series(1, 200) g;
        """
      try Company.with(branches: 2, schema: schema, tracks: [["customer", "--merge", "columns"]]) { company in
        let (head, a, b) = (company.head, company["a"], company["b"])
        try company.settle(["customer"])
        for office in company.offices { #expect(try office.stop() == 0) }
        try head.run("UPDATE customer SET name = 'head'")
        try a.run("UPDATE customer SET phone = 'a'; UPDATE customer SET note = 'a' WHERE id <= 10")
        try b.run("UPDATE customer SET mail = 'b'; UPDATE customer SET note = 'b' WHERE id <= 10")
        for office in company.offices { try office.start() }
        for office in company.offices {
          try company.eventually(
            office, "SELECT count(*) FROM customer WHERE (name, phone, mail) = ('head', 'a', 'b')", is: "200")
        }
        try company.settle(["customer"])
        let log = try head.connect().run(
          """
          SELECT count(DISTINCT key), count(*), string_agg(DISTINCT loser ->> 'column', ','), bool_and(winner ? 'row')
          FROM hub.conflict
          """)
        #expect(log.first?.map { $0 ?? "" } == ["10", "10", "note", "t"], "\(log)")
        #expect(try a.connect().value("SELECT string_agg(DISTINCT note, ',') FROM customer") == "b")
        // An office that joins now takes the columns' writers with it.
        let late = try company.open("late", cluster: 4)
        try company.join(late)
        try late.start()
        try late.run("UPDATE customer SET phone = 'late' WHERE id = 1")
        try a.run("UPDATE customer SET name = 'a' WHERE id = 1")
        for office in company.offices {
          try company.eventually(office, "SELECT name || phone FROM customer WHERE id = 1", is: "alate")
        }
        #expect(try head.connect().number("SELECT count(*) FROM hub.conflict") == 10)
      }
    }
  }
}
