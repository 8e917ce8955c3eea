// Make the server a replica set of one, and where secrets are mounted, create its users. May be
// repeated: then it sets the password of the service's user to what the secret says now.
//
// mongosh runs this on the server's own loopback, where MongoDB lets a stranger initiate the set
// and create the first user.

const fs = require("fs");

const ROLE = "conversationService";
const DATABASE = process.env.MONGODB_DATABASE || "conversation_service";
const ROOT_PASSWORD = "/run/secrets/mongodb_root_password";
const SERVICE_URL = "/run/secrets/mongodb_url";

const admin = db.getSiblingDB("admin");

function initiate() {
  if (!db.hello().setName) {
    rs.initiate({ _id: "rs0", members: [{ _id: 0, host: "mongodb:27017" }] });
  }
  while (!db.hello().isWritablePrimary) {
    sleep(200);
  }
}

function becomeRoot() {
  const password = read(ROOT_PASSWORD);
  try {
    admin.auth("root", password);
  } catch {
    // Refused unless it is the first user.
    admin.createUser({ user: "root", pwd: password, roles: ["root"] });
    admin.auth("root", password);
  }
}

// One database; no other, no administration of the server, and no dropping of the database.
function allowService() {
  const rights = {
    privileges: [
      // setup_indexes writes validators.
      { resource: { db: DATABASE, collection: "" }, actions: ["collMod"] },
    ],
    roles: [{ role: "readWrite", db: DATABASE }],
  };
  if (admin.getRole(ROLE)) {
    admin.updateRole(ROLE, rights);
  } else {
    admin.createRole({ role: ROLE, ...rights });
  }
}

function createService() {
  const url = new URL(read(SERVICE_URL));
  const name = decodeURIComponent(url.username);
  const account = { pwd: decodeURIComponent(url.password), roles: [ROLE] };
  if (admin.getUser(name)) {
    admin.updateUser(name, account);
  } else {
    admin.createUser({ user: name, ...account });
  }
}

function read(path) {
  return fs.readFileSync(path, "utf8").trim();
}

initiate();
if (fs.existsSync(ROOT_PASSWORD)) {
  becomeRoot();
  allowService();
  createService();
}
