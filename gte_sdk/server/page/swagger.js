"use strict";
// Without validatorUrl it would send the document's address to swagger.io.
SwaggerUIBundle({ url: "openapi.json", dom_id: "#swagger-ui", validatorUrl: null });
