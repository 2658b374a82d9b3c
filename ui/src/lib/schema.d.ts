// Written by scripts/types.mjs from the server's OpenAPI document; do not edit.
// sha256 72259800dfe23f0222c3cf0172456a6825540ac5105ff9062eb590290f1d17fa

export interface paths {
    "/api/attachments": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * List Attachments
         * @description The attached SAEs with the facts measured at attach.
         */
        get: operations["list_attachments_api_attachments_get"];
        put?: never;
        /**
         * Attach
         * @description Attach an SAE while the model answers; returns its measured facts.
         */
        post: operations["attach_api_attachments_post"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/attachments/{sae}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        post?: never;
        /**
         * Detach
         * @description Detach an SAE while the model answers; returns the status.
         */
        delete: operations["detach_api_attachments__sae__delete"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/calibrate": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Post Calibrate
         * @description The largest multiple of all strengths within a guard. A suggestion, not applied.
         */
        post: operations["post_calibrate_api_calibrate_post"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/compare": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Post Compare
         * @description The same question with one seed: the base model's answer, the steered one, the system prompt's.
         *
         *     Streamed, all at once: `{"column", "text"}` as it comes, an end of each column with its receipt, then where the
         *     steered answer first differs.
         */
        post: operations["post_compare_api_compare_post"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/features/contrast": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Contrast Texts
         * @description The features that fire more on one set of texts than on the other, and a profile of them (not stored).
         */
        post: operations["contrast_texts_api_features_contrast_post"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/features/inspect": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Inspect Text
         * @description The features that fire on a text, per token and overall, without steering.
         */
        post: operations["inspect_text_api_features_inspect_post"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/features/labels": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Get Labels
         * @description All labels of an SAE as JSONL, which can be imported again.
         */
        get: operations["get_labels_api_features_labels_get"];
        put?: never;
        /**
         * Post Labels
         * @description Import labels as JSONL, miLLM's or Neuronpedia's: all of them, or none where a line is invalid.
         */
        post: operations["post_labels_api_features_labels_post"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/features/search": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Search Features
         * @description Features whose labels contain every word, best match first: equal labels, then word beginnings, then others.
         */
        get: operations["search_features_api_features_search_get"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/features/{index}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Get Feature
         * @description The feature's label, promoted tokens, neighbours, and strengths to begin with.
         */
        get: operations["get_feature_api_features__index__get"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/features/{index}/label": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        /**
         * Put Label
         * @description Set a feature's label; the SAE's own file is not changed.
         */
        put: operations["put_label_api_features__index__label_put"];
        post?: never;
        /**
         * Delete Label
         * @description Delete an edited or imported label; returns that of the SAE's own file.
         */
        delete: operations["delete_label_api_features__index__label_delete"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/hardware": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Get Hardware
         * @description The processor, memory, GPUs and disk, and why models run on the CPU if they do.
         */
        get: operations["get_hardware_api_hardware_get"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/jobs": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * List Jobs
         * @description All download jobs, newest first.
         */
        get: operations["list_jobs_api_jobs_get"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/jobs/{id}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Get Job
         * @description One job.
         */
        get: operations["get_job_api_jobs__id__get"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/jobs/{id}/cancel": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Cancel Job
         * @description Cancel a download; completed files stay.
         */
        post: operations["cancel_job_api_jobs__id__cancel_post"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/jobs/{id}/resume": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Resume Job
         * @description Resume an interrupted, cancelled or failed download.
         */
        post: operations["resume_job_api_jobs__id__resume_post"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/logs": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Get Logs
         * @description The latest log lines, oldest first, without secrets, tracebacks and paths; with `after`, the first after it.
         */
        get: operations["get_logs_api_logs_get"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/models": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * List Models
         * @description Every model of the library, including incomplete ones.
         */
        get: operations["list_models_api_models_get"];
        put?: never;
        /**
         * Download Model
         * @description Download a model from Hugging Face in the background; the job has the progress.
         */
        post: operations["download_model_api_models_post"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/models/cancel": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Cancel
         * @description Cancel the running load at its next progress report; the previous model answers again.
         */
        post: operations["cancel_api_models_cancel_post"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/models/estimate": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Estimate
         * @description The memory that a model would need, and whether it fits.
         */
        post: operations["estimate_api_models_estimate_post"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/models/load": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Load
         * @description Load a model of the library in place of the current one; returns the status after the load.
         *
         *     The load continues if the client disconnects; `/cancel` cancels it.
         */
        post: operations["load_api_models_load_post"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/models/preview": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Preview Model
         * @description Size, licence and facts of a model before its download.
         */
        post: operations["preview_model_api_models_preview_post"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/models/search": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Search Models
         * @description Models on Hugging Face that this server can load (safetensors), most downloaded first.
         */
        post: operations["search_models_api_models_search_post"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/models/unload": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Unload
         * @description Wait for running answers, then free the memory; returns the status.
         */
        post: operations["unload_api_models_unload_post"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/models/{id}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Get Model
         * @description One model of the library.
         */
        get: operations["get_model_api_models__id__get"];
        put?: never;
        post?: never;
        /**
         * Delete Model
         * @description Delete a model's files, except those that other entries share.
         */
        delete: operations["delete_model_api_models__id__delete"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/monitor": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Get Monitor
         * @description The watch configuration.
         */
        get: operations["get_monitor_api_monitor_get"];
        /**
         * Put Monitor
         * @description Replace the watch configuration. Applies to new requests and survives restarts.
         */
        put: operations["put_monitor_api_monitor_put"];
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/monitor/export": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Export
         * @description The activations of the matching requests as a file, newest request first.
         */
        get: operations["export_api_monitor_export_get"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/monitor/statistics": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Get Statistics
         * @description Frequency and strength of each feature watched by name, in residual units.
         */
        get: operations["get_statistics_api_monitor_statistics_get"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/profiles": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * List Profiles
         * @description A page of the profiles, sorted by name, and their total number.
         */
        get: operations["list_profiles_api_profiles_get"];
        put?: never;
        /**
         * Add Profile
         * @description Add a profile, in the file format.
         */
        post: operations["add_profile_api_profiles_post"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/profiles/deactivate": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Deactivate
         * @description Deactivate the steering from the next token on; returns the status.
         */
        post: operations["deactivate_api_profiles_deactivate_post"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/profiles/import": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Import Document
         * @description Import a document's entries, all or none; unresolved references are an error.
         */
        post: operations["import_document_api_profiles_import_post"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/profiles/import/preview": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Preview Import
         * @description Preview the import of a document: its entries, and notes on everything changed or left out.
         */
        post: operations["preview_import_api_profiles_import_preview_post"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/profiles/save": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Save Profile
         * @description Save the active steering as a profile, with its model, SAEs and effective features.
         */
        post: operations["save_profile_api_profiles_save_post"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/profiles/{name}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Get Profile
         * @description One profile, in the file format.
         */
        get: operations["get_profile_api_profiles__name__get"];
        /**
         * Put Profile
         * @description Replace a profile, perhaps under a new name. The active one is applied again in the same transaction.
         */
        put: operations["put_profile_api_profiles__name__put"];
        post?: never;
        /**
         * Delete Profile
         * @description Delete a profile; returns its former entry.
         */
        delete: operations["delete_profile_api_profiles__name__delete"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/profiles/{name}/activate": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Activate Named
         * @description Activate a profile from the next token on.
         */
        post: operations["activate_named_api_profiles__name__activate_post"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/profiles/{name}/duplicate": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Duplicate Profile
         * @description Copy a profile under another name.
         */
        post: operations["duplicate_profile_api_profiles__name__duplicate_post"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/profiles/{name}/export": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Export Profile
         * @description A profile as a file, in miLLM's or another tool's format; an error names what the format cannot express.
         */
        get: operations["export_profile_api_profiles__name__export_get"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/profiles/{name}/rename": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Rename Profile
         * @description Rename a profile. The active one stays active.
         */
        post: operations["rename_profile_api_profiles__name__rename_post"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/queue": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * List Queue
         * @description The running and waiting requests, oldest first.
         */
        get: operations["list_queue_api_queue_get"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/queue/{id}/cancel": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Cancel Request
         * @description Cancel a request; its client gets the error `request_cancelled`.
         */
        post: operations["cancel_request_api_queue__id__cancel_post"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/registry/models": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * List Shelf
         * @description The models that have public SAEs, with number, layers and widths of these.
         */
        get: operations["list_shelf_api_registry_models_get"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/registry/saes": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Search Saes
         * @description The SAEs that match all parameters: their number, and a page of them.
         */
        get: operations["search_saes_api_registry_saes_get"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/requests": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * List Requests
         * @description The latest requests, newest first, without activations.
         */
        get: operations["list_requests_api_requests_get"];
        put?: never;
        post?: never;
        /**
         * Delete Requests
         * @description Delete all requests from the history.
         */
        delete: operations["delete_requests_api_requests_delete"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/requests/{id}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Get Request
         * @description One request with its watched activations, those of `sae` and `feature` only if given.
         */
        get: operations["get_request_api_requests__id__get"];
        put?: never;
        post?: never;
        /**
         * Delete Request
         * @description Delete one request from the history.
         */
        delete: operations["delete_request_api_requests__id__delete"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/saes": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * List Saes
         * @description Every SAE of the library, including incomplete ones.
         */
        get: operations["list_saes_api_saes_get"];
        put?: never;
        /**
         * Download Sae
         * @description Download an SAE from Hugging Face in the background; the job has the progress.
         */
        post: operations["download_sae_api_saes_post"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/saes/preview": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Preview Sae
         * @description Files and sizes of an SAE before its download.
         */
        post: operations["preview_sae_api_saes_preview_post"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/saes/{id}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Get Sae
         * @description One SAE of the library.
         */
        get: operations["get_sae_api_saes__id__get"];
        put?: never;
        post?: never;
        /**
         * Delete Sae
         * @description Delete an SAE's files, except those that other entries share.
         */
        delete: operations["delete_sae_api_saes__id__delete"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/settings": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Get Settings
         * @description Every setting, its value and origin; values of keys and folders are withheld.
         */
        get: operations["get_settings_api_settings_get"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/status": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Get Status
         * @description The server's current status.
         */
        get: operations["get_status_api_status_get"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/steering": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Get Steering
         * @description The active steering, with every strength in every unit.
         */
        get: operations["get_steering_api_steering_get"];
        /**
         * Put Steering
         * @description Activate a steering or a profile; null and {} are the base model.
         *
         *     Running answers that follow the active steering change from their next token.
         */
        put: operations["put_steering_api_steering_put"];
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        /**
         * Patch Steering
         * @description Change, add, mute or remove features, or set the master switch; the rest stays unchanged.
         */
        patch: operations["patch_steering_api_steering_patch"];
        trace?: never;
    };
    "/api/steering/redo": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Redo Steering
         * @description Redo the change undone last.
         */
        post: operations["redo_steering_api_steering_redo_post"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/steering/undo": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Undo Steering
         * @description Undo the last change of the steering, up to 50 times.
         */
        post: operations["undo_steering_api_steering_undo_post"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/sweep": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Post Sweep
         * @description All strengths at several multiples, with several seeds: each answer measured, then the means.
         *
         *     Streamed, a point at a time; closing the connection ends it.
         */
        post: operations["post_sweep_api_sweep_post"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/ws-ticket": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Issue Ticket
         * @description Issue a ticket in place of this request's key, which a browser cannot send with a websocket.
         */
        post: operations["issue_ticket_api_ws_ticket_post"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/chat/completions": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Chat Completions
         * @description Answer a conversation, in full or as a stream.
         */
        post: operations["chat_completions_v1_chat_completions_post"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/completions": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Completions
         * @description Continue one prompt or several, in full or as a stream.
         */
        post: operations["completions_v1_completions_post"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/embeddings": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Embeddings
         * @description One vector of unit length for each input, in order.
         */
        post: operations["embeddings_v1_embeddings_post"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/models": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * List Models
         * @description All values for `model`.
         */
        get: operations["list_models_v1_models_get"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/models/{model}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Retrieve Model
         * @description One model; ids may contain slashes.
         */
        get: operations["retrieve_model_v1_models__model__get"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/responses": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Responses
         * @description Answer a conversation, in full or as a stream of events. Nothing is stored.
         */
        post: operations["responses_v1_responses_post"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
}
export type webhooks = Record<string, never>;
export interface components {
    schemas: {
        /**
         * Activation
         * @description Activations of one SAE at one token.
         */
        Activation: {
            after?: number[];
            choice: number;
            position: number;
            sae: string;
            token: string;
            top: [
                number,
                number
            ][];
            top_after?: [
                number,
                number
            ][];
            values: number[];
        };
        /**
         * Activations
         * @description Activations of one SAE at one token: the monitor's watches, or the request's own where the monitor has none.
         */
        Activations: {
            after?: number[];
            endpoint: string;
            features: number[];
            index: number;
            position: number;
            request_id: string;
            sae: string;
            token: string;
            top?: [
                number,
                number
            ][];
            top_after?: [
                number,
                number
            ][];
            /** @enum {unknown} */
            type: "activations";
            values: number[];
        };
        /**
         * ActivationsRequest
         * @description `activations` in a request's body: which features to report, at which tokens.
         */
        ActivationsRequest: {
            /**
             * Features
             * @default []
             */
            features?: number[];
            /** Sae */
            sae?: string | null;
            /**
             * Sample Every
             * @description Read `top_k` at positions that are a multiple of this.
             */
            sample_every?: number | null;
            /**
             * Tokens
             * @default generated
             * @enum {string}
             */
            tokens?: "generated" | "prompt" | "all";
            /**
             * Top K
             * @description Also this many of the most active features of the dictionary.
             * @default 0
             */
            top_k?: number;
            /**
             * When
             * @description Relative to steering; `both` adds `after` to each token.
             * @default before
             * @enum {string}
             */
            when?: "before" | "after" | "both";
        };
        /**
         * Attach
         * @description An SAE of the library; default: the hook point in its files.
         */
        Attach: {
            /**
             * Allow Model Mismatch
             * @description Also if it was trained on another model of the same width; a warning stays.
             * @default false
             */
            allow_model_mismatch?: boolean;
            /**
             * Hook Point
             * @description Such as `blocks.20.hook_resid_post`.
             */
            hook_point?: string | null;
            /** Id */
            id: string;
            /** Layer */
            layer?: number | null;
            /**
             * Replaces
             * @description An SAE that is detached in the same moment.
             */
            replaces?: string | null;
        };
        /** CalibrateRequest */
        CalibrateRequest: {
            /**
             * Activations
             * @description What to report of which tokens; a list for several SAEs.
             */
            activations?: components["schemas"]["ActivationsRequest"] | components["schemas"]["ActivationsRequest"][] | null;
            /**
             * Frequency Penalty
             * @default 0
             */
            frequency_penalty?: number;
            /**
             * @default {
             *       "max_perplexity_ratio": 3,
             *       "max_repetition": 0.3
             *     }
             */
            guard?: components["schemas"]["Guard"];
            /**
             * Ignore Eos
             * @description The model's own end tokens do not end the answer.
             * @default false
             */
            ignore_eos?: boolean;
            /** Logit Bias */
            logit_bias?: {
                [key: string]: number;
            };
            /**
             * Max Tokens
             * @default 64
             */
            max_tokens?: number;
            /** Messages */
            messages?: components["schemas"]["ChatMessage"][];
            /**
             * Min P
             * @default 0
             */
            min_p?: number;
            /**
             * Min Tokens
             * @description No token ends the answer before so many.
             * @default 0
             */
            min_tokens?: number;
            /**
             * Model
             * @description `<model>` or `<model>:<profile>`; default: the model that is loaded.
             * @default
             */
            model?: string;
            /**
             * Most
             * @description The largest multiple that is tried.
             * @default 2
             */
            most?: number;
            /**
             * N
             * @default 1
             */
            n?: number;
            /**
             * Presence Penalty
             * @default 0
             */
            presence_penalty?: number;
            /**
             * Profile
             * @description Name of the steering profile to apply.
             */
            profile?: string | null;
            /**
             * Prompt
             * @description Instead of `messages`: a text to complete, without a template.
             */
            prompt?: string | null;
            /**
             * Repetition Penalty
             * @description Divides the logits of tokens that were seen, in prompt and answer.
             * @default 1
             */
            repetition_penalty?: number;
            /** Seed */
            seed?: number | null;
            /**
             * Seeds
             * @description One answer each.
             */
            seeds?: number[];
            /** @description A steering; null or {} is the base model. */
            steering?: components["schemas"]["SteeringRequest"] | null;
            /** Stop */
            stop?: string[];
            /**
             * Stop Token Ids
             * @description Tokens that end the answer as well.
             */
            stop_token_ids?: number[];
            /**
             * Stream
             * @default false
             */
            stream?: boolean;
            /**
             * @default {
             *       "include_usage": false
             *     }
             */
            stream_options?: components["schemas"]["StreamOptions"];
            /**
             * System Prompt
             * @description Also answer with the base model and this in front of `messages`.
             */
            system_prompt?: string | null;
            /**
             * Temperature
             * @default 0.7
             */
            temperature?: number;
            /**
             * Top K
             * @description 0 or -1: all tokens.
             * @default 0
             */
            top_k?: number;
            /**
             * Top P
             * @default 1
             */
            top_p?: number;
        };
        /** CalledFunction */
        CalledFunction: {
            /**
             * Arguments
             * @default {}
             */
            arguments?: unknown;
            /** Name */
            name: string;
        } & {
            [key: string]: unknown;
        };
        /**
         * Cause
         * @description An error code and message.
         */
        Cause: {
            code: string;
            message: string;
        };
        /**
         * ChangeInProgress
         * @description A running load, unload, attach or detach.
         */
        ChangeInProgress: {
            /** @default 0 */
            done: number;
            name: string;
            /** @default  */
            stage: string;
            /** @default 0 */
            total: number;
            what: string;
        };
        /**
         * ChangeProgress
         * @description Progress of loading a model or attaching an SAE.
         */
        ChangeProgress: {
            done: number;
            stage: string;
            total: number;
            /** @enum {unknown} */
            type: "progress";
            what: string;
        };
        /** ChatMessage */
        ChatMessage: {
            /** Content */
            content?: string | {
                [key: string]: unknown;
            }[];
            function_call?: components["schemas"]["CalledFunction"] | null;
            /** Name */
            name?: string | null;
            /**
             * Role
             * @enum {string}
             */
            role: "developer" | "system" | "user" | "assistant" | "tool" | "function";
            /** Tool Call Id */
            tool_call_id?: string | null;
            /** Tool Calls */
            tool_calls?: components["schemas"]["ToolCall"][];
        } & {
            [key: string]: unknown;
        };
        /** ChatRequest */
        ChatRequest: {
            /**
             * Activations
             * @description What to report of which tokens; a list for several SAEs.
             */
            activations?: components["schemas"]["ActivationsRequest"] | components["schemas"]["ActivationsRequest"][] | null;
            /**
             * Add Generation Prompt
             * @description Default: true.
             */
            add_generation_prompt?: boolean | null;
            /**
             * Chat Template Kwargs
             * @description Switches of the model's template, such as `enable_thinking`.
             */
            chat_template_kwargs?: {
                [key: string]: unknown;
            };
            /**
             * Continue Final Message
             * @description Continue the last message, which must be the assistant's.
             * @default false
             */
            continue_final_message?: boolean;
            /**
             * Frequency Penalty
             * @default 0
             */
            frequency_penalty?: number;
            /**
             * Function Call
             * @description Older form of `tool_choice`.
             */
            function_call?: {
                [key: string]: unknown;
            } | string | null;
            /**
             * Functions
             * @description Older form of `tools`.
             */
            functions?: components["schemas"]["OfferedFunction"][];
            /**
             * Ignore Eos
             * @description The model's own end tokens do not end the answer.
             * @default false
             */
            ignore_eos?: boolean;
            /** Logit Bias */
            logit_bias?: {
                [key: string]: number;
            };
            /**
             * Logprobs
             * @default false
             */
            logprobs?: boolean;
            /** Max Completion Tokens */
            max_completion_tokens?: number | null;
            /**
             * Max Tokens
             * @description Older name of `max_completion_tokens`.
             */
            max_tokens?: number | null;
            /** Messages */
            messages: components["schemas"]["ChatMessage"][];
            /**
             * Min P
             * @default 0
             */
            min_p?: number;
            /**
             * Min Tokens
             * @description No token ends the answer before so many.
             * @default 0
             */
            min_tokens?: number;
            /** Modalities */
            modalities?: string[];
            /**
             * Model
             * @description `<model>` or `<model>:<profile>`.
             */
            model: string;
            /**
             * N
             * @default 1
             */
            n?: number;
            /**
             * Parallel Tool Calls
             * @description Several calls in one answer. Default: with `auto` yes, with `required` no.
             */
            parallel_tool_calls?: boolean | null;
            /**
             * Presence Penalty
             * @default 0
             */
            presence_penalty?: number;
            /**
             * Profile
             * @description Name of the steering profile to apply.
             */
            profile?: string | null;
            /**
             * Reasoning Effort
             * @description For templates that read it.
             */
            reasoning_effort?: string | null;
            /**
             * Repetition Penalty
             * @description Divides the logits of tokens that were seen, in prompt and answer.
             * @default 1
             */
            repetition_penalty?: number;
            /**
             * @description `text`, `json_object` or `json_schema`: [structured output](structured-output.md).
             * @default {
             *       "type": "text"
             *     }
             */
            response_format?: components["schemas"]["ResponseFormat"];
            /** Seed */
            seed?: number | null;
            /** @description A steering; null or {} is the base model. */
            steering?: components["schemas"]["SteeringRequest"] | null;
            /** Stop */
            stop?: string[];
            /**
             * Stop Token Ids
             * @description Tokens that end the answer as well.
             */
            stop_token_ids?: number[];
            /**
             * Stream
             * @default false
             */
            stream?: boolean;
            /**
             * @default {
             *       "include_usage": false
             *     }
             */
            stream_options?: components["schemas"]["StreamOptions"];
            /**
             * Temperature
             * @default 1
             */
            temperature?: number;
            /**
             * Tool Choice
             * @description `auto`, `none`, `required`, a function, or `allowed_tools`. Default: `auto`.
             */
            tool_choice?: unknown;
            /**
             * Tools
             * @description Functions that may be called.
             */
            tools?: components["schemas"]["Tool"][];
            /**
             * Top K
             * @description 0 or -1: all tokens.
             * @default 0
             */
            top_k?: number;
            /** Top Logprobs */
            top_logprobs?: number | null;
            /**
             * Top P
             * @default 1
             */
            top_p?: number;
        } & {
            [key: string]: unknown;
        };
        /**
         * Column
         * @description One column, complete.
         */
        Column: {
            column: string;
            /** @enum {unknown} */
            finish_reason: "length" | "stop" | "tool_calls";
            reasoning?: string;
            receipt: components["schemas"]["Extension"];
            text: string;
            usage: components["schemas"]["Usage"];
        };
        /** CompareRequest */
        CompareRequest: {
            /**
             * Activations
             * @description What to report of which tokens; a list for several SAEs.
             */
            activations?: components["schemas"]["ActivationsRequest"] | components["schemas"]["ActivationsRequest"][] | null;
            /**
             * Frequency Penalty
             * @default 0
             */
            frequency_penalty?: number;
            /**
             * Ignore Eos
             * @description The model's own end tokens do not end the answer.
             * @default false
             */
            ignore_eos?: boolean;
            /** Logit Bias */
            logit_bias?: {
                [key: string]: number;
            };
            /** Max Tokens */
            max_tokens?: number | null;
            /** Messages */
            messages?: components["schemas"]["ChatMessage"][];
            /**
             * Min P
             * @default 0
             */
            min_p?: number;
            /**
             * Min Tokens
             * @description No token ends the answer before so many.
             * @default 0
             */
            min_tokens?: number;
            /**
             * Model
             * @description `<model>` or `<model>:<profile>`; default: the model that is loaded.
             * @default
             */
            model?: string;
            /**
             * N
             * @default 1
             */
            n?: number;
            /**
             * Presence Penalty
             * @default 0
             */
            presence_penalty?: number;
            /**
             * Profile
             * @description Name of the steering profile to apply.
             */
            profile?: string | null;
            /**
             * Prompt
             * @description Instead of `messages`: a text to complete, without a template.
             */
            prompt?: string | null;
            /**
             * Repetition Penalty
             * @description Divides the logits of tokens that were seen, in prompt and answer.
             * @default 1
             */
            repetition_penalty?: number;
            /** Seed */
            seed?: number | null;
            /** @description A steering; null or {} is the base model. */
            steering?: components["schemas"]["SteeringRequest"] | null;
            /** Stop */
            stop?: string[];
            /**
             * Stop Token Ids
             * @description Tokens that end the answer as well.
             */
            stop_token_ids?: number[];
            /**
             * Stream
             * @description False: one JSON object, when all is written.
             * @default true
             */
            stream?: boolean;
            /**
             * @default {
             *       "include_usage": false
             *     }
             */
            stream_options?: components["schemas"]["StreamOptions"];
            /**
             * System Prompt
             * @description Also answer with the base model and this in front of `messages`.
             */
            system_prompt?: string | null;
            /**
             * Temperature
             * @default 1
             */
            temperature?: number;
            /**
             * Top K
             * @description 0 or -1: all tokens.
             * @default 0
             */
            top_k?: number;
            /**
             * Top P
             * @default 1
             */
            top_p?: number;
        };
        /**
         * Comparison
         * @description A comparison, complete.
         */
        Comparison: {
            columns: components["schemas"]["Column"][];
            divergence: number | null;
            model: string;
            prompt_tokens: {
                [key: string]: number;
            };
            seed: number;
        };
        /** CompletionDetails */
        CompletionDetails: {
            /** @default 0 */
            reasoning_tokens: number;
        };
        /** CompletionRequest */
        CompletionRequest: {
            /**
             * Activations
             * @description What to report of which tokens; a list for several SAEs.
             */
            activations?: components["schemas"]["ActivationsRequest"] | components["schemas"]["ActivationsRequest"][] | null;
            /**
             * Best Of
             * @description Samples to generate; the `n` likeliest per token are returned.
             */
            best_of?: number | null;
            /**
             * Echo
             * @description The answer starts with the prompt, also in its `logprobs`.
             * @default false
             */
            echo?: boolean;
            /**
             * Frequency Penalty
             * @default 0
             */
            frequency_penalty?: number;
            /**
             * Ignore Eos
             * @description The model's own end tokens do not end the answer.
             * @default false
             */
            ignore_eos?: boolean;
            /** Logit Bias */
            logit_bias?: {
                [key: string]: number;
            };
            /** Logprobs */
            logprobs?: number | null;
            /**
             * Max Tokens
             * @default 16
             */
            max_tokens?: number;
            /**
             * Min P
             * @default 0
             */
            min_p?: number;
            /**
             * Min Tokens
             * @description No token ends the answer before so many.
             * @default 0
             */
            min_tokens?: number;
            /**
             * Model
             * @description `<model>` or `<model>:<profile>`.
             */
            model: string;
            /**
             * N
             * @default 1
             */
            n?: number;
            /**
             * Presence Penalty
             * @default 0
             */
            presence_penalty?: number;
            /**
             * Profile
             * @description Name of the steering profile to apply.
             */
            profile?: string | null;
            /** Prompt */
            prompt?: string | string[] | number[] | number[][];
            /**
             * Repetition Penalty
             * @description Divides the logits of tokens that were seen, in prompt and answer.
             * @default 1
             */
            repetition_penalty?: number;
            /** Seed */
            seed?: number | null;
            /** @description A steering; null or {} is the base model. */
            steering?: components["schemas"]["SteeringRequest"] | null;
            /** Stop */
            stop?: string[];
            /**
             * Stop Token Ids
             * @description Tokens that end the answer as well.
             */
            stop_token_ids?: number[];
            /**
             * Stream
             * @default false
             */
            stream?: boolean;
            /**
             * @default {
             *       "include_usage": false
             *     }
             */
            stream_options?: components["schemas"]["StreamOptions"];
            /**
             * Temperature
             * @default 1
             */
            temperature?: number;
            /**
             * Top K
             * @description 0 or -1: all tokens.
             * @default 0
             */
            top_k?: number;
            /**
             * Top P
             * @default 1
             */
            top_p?: number;
        } & {
            [key: string]: unknown;
        };
        /**
         * ContrastBody
         * @description Two sets of texts.
         */
        ContrastBody: {
            /** A */
            a: string[];
            /** B */
            b: string[];
            /**
             * Limit
             * @description Features reported per direction.
             * @default 20
             */
            limit?: number;
            /**
             * Make
             * @description Features of the profile.
             * @default 3
             */
            make?: number;
            /**
             * Name
             * @description Of the profile.
             * @default contrast
             */
            name?: string;
            /**
             * Sae
             * @description Default: the only SAE that is attached.
             */
            sae?: string | null;
        };
        /** Cpu */
        Cpu: {
            cores: number | null;
            name: string;
            threads: number;
        };
        /**
         * CpuFallbackReason
         * @description Why the model runs on the CPU.
         */
        CpuFallbackReason: {
            /** @default  */
            fix: string;
            message: string;
        };
        /**
         * DeletedRequests
         * @description The number of deleted requests.
         */
        DeletedRequests: {
            requests: number;
        };
        /**
         * DeletionResult
         * @description The bytes that a deletion freed.
         */
        DeletionResult: {
            bytes: number;
            id: string;
            /** @default 0 */
            kept: number;
        };
        /**
         * Disk
         * @description Bytes.
         */
        Disk: {
            free: number;
            total: number;
        };
        /**
         * Download
         * @description A Hugging Face repository.
         */
        Download: {
            /**
             * Id
             * @description `owner/name`; of an SAE `owner/name/path/inside`.
             */
            id: string;
            /**
             * Revision
             * @description A branch, a tag or a commit.
             * @default main
             */
            revision?: string;
        };
        /**
         * DownloadJob
         * @description A download from `queued` to `installed`.
         */
        DownloadJob: {
            asked: components["schemas"]["DownloadSpec"];
            /** @default 1 */
            attempt: number;
            /** @default null */
            commit: string | null;
            created: number;
            /** @default 0 */
            done: number;
            /** @default 0 */
            files_done: number;
            /** @default 0 */
            files_total: number;
            id: string;
            name: string;
            /** @default null */
            problem: components["schemas"]["Problem"] | null;
            /** @default null */
            retry_in: number | null;
            /** @default null */
            seconds_left: number | null;
            /** @default null */
            speed: number | null;
            /** @enum {unknown} */
            state: "cancelled" | "converting" | "failed" | "installed" | "interrupted" | "queued" | "resolving" | "running" | "verifying" | "waiting";
            /** @default 0 */
            total: number;
            updated: number;
        };
        /**
         * DownloadPreview
         * @description What a download would fetch.
         */
        DownloadPreview: {
            /** @default null */
            architecture: string | null;
            asked: components["schemas"]["DownloadSpec"];
            commit: string;
            disk_free: number;
            disk_reserve: number;
            /** @default null */
            dtype: string | null;
            files: components["schemas"]["PreviewFile"][];
            /** @default false */
            gated: boolean;
            /** @default true */
            has_access: boolean;
            /** @default 0 */
            known_saes: number;
            /** @default null */
            licence: string | null;
            link: string;
            name: string;
            /** @default false */
            needs_remote_code: boolean;
            /** @default null */
            parameters: number | null;
            /** @default null */
            quantization: string | null;
            size: number;
            skipped: number;
            to_download: number;
        };
        /**
         * DownloadSpec
         * @description The files of a model or an SAE in a Hugging Face repository.
         */
        DownloadSpec: {
            /** @enum {unknown} */
            kind: "model" | "sae";
            /** @default  */
            path: string;
            repository: string;
            /** @default main */
            revision: string;
        };
        /**
         * Dropped
         * @description Number of events lost before the next one, because the subscriber is too slow.
         */
        Dropped: {
            count: number;
            /** @enum {unknown} */
            type: "dropped";
        };
        /** Duplicate */
        Duplicate: {
            /**
             * Name
             * @description Default: the same, with a number behind it.
             */
            name?: string | null;
        };
        /** EmbeddingRequest */
        EmbeddingRequest: {
            /**
             * Activations
             * @description Read at every token; `tokens` and `when` change nothing.
             */
            activations?: components["schemas"]["ActivationsRequest"] | components["schemas"]["ActivationsRequest"][] | null;
            /**
             * Dimensions
             * @description Only the first so many numbers, at length 1 again.
             */
            dimensions?: number | null;
            /**
             * Encoding Format
             * @description `base64`: little-endian float32.
             * @default float
             * @enum {string}
             */
            encoding_format?: "float" | "base64";
            /**
             * Input
             * @description Texts or token ids; at most 2048 of them.
             */
            input: string | string[] | number[] | number[][];
            /**
             * Model
             * @description `<model>`; a profile changes nothing in a vector.
             */
            model: string;
            /**
             * Profile
             * @description Accepted, and changes nothing.
             */
            profile?: string | null;
        } & {
            [key: string]: unknown;
        };
        /**
         * Error
         * @description Why a request was rejected or failed.
         */
        Error: {
            /** Code */
            code: string | null;
            /** Message */
            message: string;
            /** Param */
            param: string | null;
            /** Type */
            type: string;
        };
        /**
         * ErrorAnswer
         * @description Body of every response with a status of 400 or more.
         */
        ErrorAnswer: {
            error: components["schemas"]["Error"];
        };
        /**
         * Estimate
         * @description Bytes on the device, part by part; None where the files do not state it.
         */
        Estimate: {
            activations: number | null;
            /** @default  */
            advice: string;
            context: number | null;
            device: string;
            dtype: string;
            /** @default 0 */
            evictable: number;
            free: number | null;
            kv_cache: number | null;
            kv_cache_all: number | null;
            model: string;
            overhead: number;
            quantization: string;
            saes: number;
            slots: number;
            total: number | null;
            /** @enum {unknown} */
            verdict: "does_not_fit" | "fits" | "unknown";
            weights: number | null;
            /** @default null */
            while_loading: number | null;
        };
        /** EstimateBody */
        EstimateBody: {
            /** Attention */
            attention?: ("auto" | "eager" | "sdpa" | "flash_attention_2") | null;
            /**
             * Context
             * @description Tokens of one sequence.
             */
            context?: number | null;
            /** Device */
            device?: string | null;
            /**
             * Device Map
             * @description `auto` spreads it over several GPUs.
             */
            device_map?: ("single" | "auto") | null;
            /** Dtype */
            dtype?: ("auto" | "float32" | "bfloat16" | "float16") | null;
            /** Id */
            id: string;
            /**
             * Quantization
             * @description Through bitsandbytes.
             */
            quantization?: ("none" | "8bit" | "4bit") | null;
            /**
             * Saes
             * @description SAEs to be attached.
             */
            saes?: string[];
            /**
             * Slots
             * @description Requests that run at once.
             */
            slots?: number | null;
        };
        /**
         * Extension
         * @description `millm` in a response: the receipt of the applied steering, and the requested activations.
         */
        Extension: {
            activations?: components["schemas"]["Activation"][];
            degraded?: string;
            delta_norm_ratio?: number;
            profile?: string | null;
            sample_every?: number;
            steering?: string | null;
            tokens_steered?: number;
            tools_omitted?: boolean;
        };
        /**
         * FeatureCard
         * @description All that is known about one feature.
         */
        FeatureCard: {
            decoder_norm: number;
            density: number | null;
            hook_point: string;
            index: number;
            label: string | null;
            layer: number;
            max_act: number | null;
            neighbours: components["schemas"]["Neighbour"][];
            neuronpedia: string | null;
            observed: components["schemas"]["FeatureStatistics"] | null;
            promoted: components["schemas"]["PromotedToken"][];
            sae: string;
            source: string | null;
            strengths: components["schemas"]["Strengths"];
            suppressed: components["schemas"]["PromotedToken"][];
        };
        /**
         * FeatureChange
         * @description A changed or added feature; omitted fields stay unchanged.
         */
        FeatureChange: {
            /**
             * Color
             * @description How it is drawn: a name or `#rrggbb`.
             */
            color?: string | null;
            /**
             * Index
             * @description Feature index in the SAE's dictionary.
             */
            index: number;
            /**
             * Label
             * @description What the feature seems to mean.
             */
            label?: string | null;
            /**
             * Max Act
             * @description The feature's maximum, for `max_act`.
             */
            max_act?: number | null;
            /**
             * Mode
             * @default add
             * @enum {string}
             */
            mode?: "add" | "clamp" | "min_clamp" | "scale" | "ablate";
            /**
             * Muted
             * @description Does nothing for now.
             */
            muted?: boolean | null;
            /**
             * Sae
             * @description Which SAE, if there are several: in a profile one of its `saes`.
             */
            sae?: string | null;
            /**
             * Solo
             * @description While any is, only these do something.
             */
            solo?: boolean | null;
            /**
             * Strength
             * @description The amount, in `unit`.
             * @default 0
             */
            strength?: number;
            /**
             * Unit
             * @default raw
             * @enum {string}
             */
            unit?: "raw" | "norm" | "max_act";
        };
        /**
         * FeatureOnText
         * @description A feature over the counted tokens.
         */
        FeatureOnText: {
            count: number;
            index: number;
            label: string | null;
            max: number;
            mean: number;
        };
        /** FeatureRef */
        FeatureRef: {
            /**
             * Index
             * @description Feature index in the SAE's dictionary.
             */
            index: number;
            /** Sae */
            sae?: string | null;
        };
        /**
         * FeatureStatistics
         * @description One feature over the selected requests. A feature fires where its activation is above 0.
         */
        FeatureStatistics: {
            feature: number;
            fired: number;
            frequency: number;
            histogram: number[];
            largest: components["schemas"]["Largest"] | null;
            mean: number;
            mean_fired: number;
            sae: string;
            tokens: number;
        };
        /**
         * Firing
         * @description A feature's activation at a token.
         */
        Firing: {
            activation: number;
            index: number;
            /** @default null */
            label: string | null;
        };
        /**
         * FoundLabel
         * @description A feature with a matching label.
         */
        FoundLabel: {
            density: number | null;
            index: number;
            label: string;
            max_act: number | null;
            sae: string;
            source: string;
        };
        /**
         * FoundLabels
         * @description A page of the features with matching labels.
         */
        FoundLabels: {
            features: components["schemas"]["FoundLabel"][];
            total: number;
        };
        /** FunctionTool */
        FunctionTool: {
            /** Description */
            description?: string | null;
            /** Name */
            name: string;
            /** Parameters */
            parameters?: {
                [key: string]: unknown;
            } | null;
            /** Strict */
            strict?: boolean | null;
            /** Type */
            type: string;
        } & {
            [key: string]: unknown;
        };
        /**
         * Gpu
         * @description One GPU; sizes in bytes.
         */
        Gpu: {
            free: number;
            id: string;
            name: string;
            number: number;
            ours: number | null;
            temperature: number | null;
            total: number;
            used: number;
        };
        /**
         * Guard
         * @description The limits within which an answer counts as coherent.
         */
        Guard: {
            /**
             * Max Perplexity Ratio
             * @description Perplexity under the base model, steered / base.
             * @default 3
             */
            max_perplexity_ratio?: number;
            /**
             * Max Repetition
             * @description Share of 3-word sequences that were there before.
             * @default 0.3
             */
            max_repetition?: number;
        };
        /** GuardLimits */
        GuardLimits: {
            max_perplexity_ratio: number;
            max_repetition: number;
        };
        /** Hardware */
        Hardware: {
            cache: components["schemas"]["Disk"];
            cpu: components["schemas"]["Cpu"];
            driver: string | null;
            driver_cuda: string | null;
            gpus: components["schemas"]["Gpu"][];
            home: components["schemas"]["Disk"];
            memory: components["schemas"]["Memory"];
            reason: components["schemas"]["CpuFallbackReason"] | null;
            torch: components["schemas"]["Platform"] | null;
        };
        /**
         * Hello
         * @description The first event of a connection.
         */
        Hello: {
            status: string;
            /** @enum {unknown} */
            type: "hello";
            version: string;
        };
        /**
         * HubSearch
         * @description A search of model names on Hugging Face.
         */
        HubSearch: {
            /**
             * Limit
             * @default 20
             */
            limit?: number;
            /** Text */
            text: string;
        };
        /**
         * ImportPreview
         * @description The entries that an import would add.
         */
        ImportPreview: {
            entries: components["schemas"]["PreviewEntry"][];
            format: string;
            notes: string[];
        };
        /**
         * ImportResponse
         * @description The results of an import.
         */
        ImportResponse: {
            entries: components["schemas"]["ImportedEntry"][];
        };
        /**
         * ImportedEntry
         * @description The result of one entry.
         */
        ImportedEntry: {
            /** @enum {unknown} */
            did: "added" | "nothing" | "replaced" | "skipped";
            name: string;
            notes: string[];
            path: string;
        };
        /**
         * InspectBody
         * @description A text as a string, chat messages or token ids.
         */
        InspectBody: {
            /**
             * Features
             * @description Reported at every token.
             */
            features?: number[];
            /**
             * Input Ids
             * @description As they are.
             */
            input_ids?: number[] | null;
            /**
             * Limit
             * @description Features summarised over the text.
             * @default 50
             */
            limit?: number;
            /**
             * Messages
             * @description Through the chat template.
             */
            messages?: components["schemas"]["ChatMessage"][] | null;
            /**
             * Sae
             * @description Default: the only SAE that is attached.
             */
            sae?: string | null;
            /** Text */
            text?: string | null;
            /**
             * Top K
             * @description At each token.
             * @default 5
             */
            top_k?: number;
        };
        /**
         * Inspection
         * @description The features that fire on a text.
         */
        Inspection: {
            counted: number;
            features: components["schemas"]["FeatureOnText"][];
            fired: number;
            sae: string;
            tokens: components["schemas"]["ReadToken"][];
        };
        /**
         * JobChanged
         * @description A download was queued, progressed or finished; at least twice a second while it runs.
         */
        JobChanged: {
            job: components["schemas"]["DownloadJob"];
            /** @enum {unknown} */
            type: "job";
        };
        /** JsonSchema */
        JsonSchema: {
            /**
             * Description
             * @default
             */
            description?: string;
            /** Name */
            name: string;
            /** Schema */
            schema: unknown;
            /**
             * Strict
             * @default false
             */
            strict?: boolean;
        } & {
            [key: string]: unknown;
        };
        /**
         * LabelBody
         * @description A user's label of a feature.
         */
        LabelBody: {
            /** Label */
            label: string;
            /**
             * Max Act
             * @description The largest activation seen: the unit `max_act`.
             */
            max_act?: number | null;
        };
        /**
         * Largest
         * @description The largest activation of a feature, and its token.
         */
        Largest: {
            index: number;
            position: number;
            request_id: string;
            value: number;
        };
        /**
         * LibraryChanged
         * @description A model or SAE was installed, imported or deleted.
         */
        LibraryChanged: {
            /** @enum {unknown} */
            kind: "model" | "sae";
            name: string;
            /** @enum {unknown} */
            type: "library";
        };
        /** Load */
        Load: {
            /** Attention */
            attention?: ("auto" | "eager" | "sdpa" | "flash_attention_2") | null;
            /**
             * Context
             * @description Tokens of one sequence.
             */
            context?: number | null;
            /** Device */
            device?: string | null;
            /**
             * Device Map
             * @description `auto` spreads it over several GPUs.
             */
            device_map?: ("single" | "auto") | null;
            /** Dtype */
            dtype?: ("auto" | "float32" | "bfloat16" | "float16") | null;
            /**
             * Force
             * @description Also where the estimate says that it does not fit.
             * @default false
             */
            force?: boolean;
            /** Id */
            id: string;
            /**
             * Quantization
             * @description Through bitsandbytes.
             */
            quantization?: ("none" | "8bit" | "4bit") | null;
            /**
             * Slots
             * @description Requests that run at once.
             */
            slots?: number | null;
        };
        /** LogEntry */
        LogEntry: {
            event: string;
            fields: Record<string, never>;
            level: string;
            number: number;
            time: string;
        };
        /**
         * MeasuredAnswer
         * @description One answer at one multiple of the strengths, measured.
         */
        MeasuredAnswer: {
            /** @default 0 */
            done: number;
            /** @enum {unknown} */
            finish_reason: "length" | "stop" | "tool_calls";
            kl: number | null;
            nll: number | null;
            perplexity: number | null;
            repetition: number;
            scale: number | null;
            seed: number;
            text: string;
            tokens: number;
        };
        /**
         * Memory
         * @description Bytes, of the machine or of this container if that is less.
         */
        Memory: {
            available: number;
            ours: number;
            total: number;
        };
        /**
         * MemoryUse
         * @description Bytes on the device, measured after the load.
         */
        MemoryUse: {
            free: number;
            kv_cache: number;
            process: number;
            weights: number;
        };
        /**
         * ModelEntry
         * @description A model in the library.
         */
        ModelEntry: {
            /** @default null */
            architecture: string | null;
            /** @default null */
            commit: string | null;
            /** @default null */
            context_length: number | null;
            /** @default null */
            dtype: string | null;
            /** @default true */
            generates: boolean;
            id: string;
            /** @default false */
            is_loaded: boolean;
            /** @default false */
            is_verified: boolean;
            /** @default null */
            last_used: number | null;
            /** @default null */
            model_type: string | null;
            /** @default false */
            needs_remote_code: boolean;
            /** @enum {unknown} */
            origin: "builtin" | "hub" | "imported";
            /** @default null */
            parameters: number | null;
            /** @default null */
            problem: string | null;
            /** @default null */
            quantization: string | null;
            /** @default 0 */
            shared: number;
            size: number;
            /** @enum {unknown} */
            state: "damaged" | "incomplete" | "whole";
        };
        /**
         * ModelFacts
         * @description Properties of the loaded model.
         */
        ModelFacts: {
            architecture: string;
            context_length: number;
            device: string;
            dtype: string;
            /** @default true */
            generates: boolean;
            /** @default  */
            id: string;
            layers: number;
            /** @default null */
            memory: components["schemas"]["MemoryUse"] | null;
            parameters: number;
            runner: string;
            /** @default  */
            runner_reason: string;
            /** @default 1 */
            slots: number;
            stop_ids: number[];
            vocab_size: number;
            /** @default  */
            weights: string;
            width: number;
        };
        /**
         * ModelReference
         * @description The model that a profile is for.
         */
        ModelReference: {
            /**
             * Quantization
             * @description How it was loaded then: a hint.
             */
            quantization?: string | null;
            /**
             * Repo Id
             * @description A Hugging Face id, or a local name.
             */
            repo_id: string;
            /**
             * Revision
             * @description A branch, a tag or a commit.
             */
            revision?: string | null;
        };
        /** ModelStatus */
        ModelStatus: {
            /** @default null */
            estimate: components["schemas"]["Estimate"] | null;
            facts: components["schemas"]["ModelFacts"];
            name: string;
            /** @default null */
            unloads_in: number | null;
        };
        /**
         * MonitorBody
         * @description The complete watch configuration.
         */
        MonitorBody: {
            /**
             * Follow Profile
             * @default false
             */
            follow_profile?: boolean;
            /**
             * On
             * @default true
             */
            on?: boolean;
            /** Watch */
            watch?: {
                [key: string]: unknown;
            }[];
        };
        /**
         * MonitorState
         * @description The watch configuration of new requests, and the size of the history.
         */
        MonitorState: {
            follow_profile: boolean;
            history: number;
            history_bytes: number;
            history_size: number;
            on: boolean;
            watch: components["schemas"]["WatchState"][];
        };
        /**
         * Neighbour
         * @description A feature with a similar decoder row.
         */
        Neighbour: {
            cosine: number;
            index: number;
            label: string | null;
        };
        /** OfferedFunction */
        OfferedFunction: {
            /**
             * Description
             * @default
             */
            description?: string;
            /** Name */
            name: string;
            /** Parameters */
            parameters?: {
                [key: string]: unknown;
            };
            /**
             * Strict
             * @default false
             */
            strict?: boolean;
        } & {
            [key: string]: unknown;
        };
        /**
         * Platform
         * @description What torch uses in the engine.
         */
        Platform: {
            built_for: string | null;
            devices: string[];
            threads: number;
            torch: string;
        };
        /**
         * PreviewEntry
         * @description One profile, set of labels or unusable part of a document.
         */
        PreviewEntry: {
            /** @enum {unknown} */
            becomes: "labels" | "nothing" | "profile";
            labels: number;
            misfit: string | null;
            name: string;
            notes: string[];
            path: string;
            profile: Record<string, never> | null;
            sae: string | null;
            unresolved: components["schemas"]["UnresolvedReference"][];
        };
        /** PreviewFile */
        PreviewFile: {
            is_here: boolean;
            path: string;
            size: number;
        };
        /**
         * Problem
         * @description Why a job failed or waits.
         */
        Problem: {
            code: string;
            /** @default null */
            link: string | null;
            message: string;
        };
        /**
         * Profile
         * @description A named steering, with everything needed to apply it exactly on another server.
         */
        Profile: {
            /**
             * Description
             * @default
             */
            description?: string;
            /**
             * Example Prompts
             * @default []
             */
            example_prompts?: string[];
            /**
             * Features
             * @default []
             */
            features?: components["schemas"]["ProfileFeature"][];
            model?: components["schemas"]["ModelReference"] | string | null;
            /**
             * Name
             * @description 1 to 128 characters of any script, without slashes.
             */
            name: string;
            /**
             * Positions
             * @default all
             * @enum {string}
             */
            positions?: "all" | "prompt" | "generated";
            provenance?: components["schemas"]["Provenance"] | null;
            /** Reference Norm */
            reference_norm?: number | null;
            /**
             * Saes
             * @default []
             */
            saes?: components["schemas"]["SaeReference"][];
            /** Skip */
            skip?: ("bos" | "special" | "none") | null;
            /**
             * Skip Constrained
             * @description No steering while a JSON schema or a forced tool call decides the tokens.
             * @default false
             */
            skip_constrained?: boolean;
            /**
             * Tags
             * @default []
             */
            tags?: string[];
            /**
             * Version
             * @default 1
             * @constant
             */
            version?: "1";
            /**
             * Watch
             * @default []
             */
            watch?: components["schemas"]["WatchedFeature"][];
        };
        /**
         * ProfileDetail
         * @description One profile with all fields.
         */
        ProfileDetail: {
            entry: components["schemas"]["ProfileEntry"];
            profile: Record<string, never>;
        };
        /**
         * ProfileEntry
         * @description One profile of the list, without its features.
         */
        ProfileEntry: {
            created: number;
            description: string;
            features: number;
            is_active: boolean;
            misfit: string | null;
            model: string | null;
            model_id: string | null;
            name: string;
            saes: string[];
            source: string | null;
            updated: number;
        };
        /**
         * ProfileFeature
         * @description One feature of a profile, or of a request's `steering`.
         */
        ProfileFeature: {
            /**
             * Color
             * @description How it is drawn: a name or `#rrggbb`.
             */
            color?: string | null;
            /**
             * Index
             * @description Feature index in the SAE's dictionary.
             */
            index: number;
            /**
             * Label
             * @description What the feature seems to mean.
             */
            label?: string | null;
            /**
             * Max Act
             * @description The feature's maximum, for `max_act`.
             */
            max_act?: number | null;
            /**
             * Mode
             * @default add
             * @enum {string}
             */
            mode?: "add" | "clamp" | "min_clamp" | "scale" | "ablate";
            /**
             * Sae
             * @description Which SAE, if there are several: in a profile one of its `saes`.
             */
            sae?: string | null;
            /**
             * Strength
             * @description The amount, in `unit`.
             * @default 0
             */
            strength?: number;
            /**
             * Unit
             * @default raw
             * @enum {string}
             */
            unit?: "raw" | "norm" | "max_act";
        };
        /**
         * ProfilePage
         * @description A page of the list, sorted by name.
         */
        ProfilePage: {
            profiles: components["schemas"]["ProfileEntry"][];
            total: number;
        };
        /**
         * ProfilesChanged
         * @description A profile was added, changed, renamed or deleted.
         */
        ProfilesChanged: {
            name: string;
            /** @enum {unknown} */
            type: "profiles";
            /** @default null */
            was: string | null;
            /** @enum {unknown} */
            what: "added" | "changed" | "deleted";
        };
        /**
         * PromotedToken
         * @description A token whose logit a feature changes.
         */
        PromotedToken: {
            id: number;
            logit: number;
            token: string;
        };
        /** PromptDetails */
        PromptDetails: {
            /** @default 0 */
            cached_tokens: number;
        };
        /**
         * Provenance
         * @description The origin of a profile.
         */
        Provenance: {
            /** Created */
            created?: string | null;
            /**
             * Format
             * @description Which of its formats.
             */
            format?: string | null;
            /**
             * Id
             * @description What it is called there.
             */
            id?: string | null;
            /**
             * Note
             * @description What its import changed or left out.
             */
            note?: string | null;
            /**
             * Source
             * @description A tool: `millm`, `mistudio`, `neuronpedia`, …
             */
            source: string;
            /** Url */
            url?: string | null;
        };
        /**
         * PutLabels
         * @description The result of a label import.
         */
        PutLabels: {
            labels: number;
            sae: string;
        };
        /**
         * ReadToken
         * @description A token and the features that fire on it.
         */
        ReadToken: {
            counts: boolean;
            id: number;
            position: number;
            token: string;
            top: components["schemas"]["Firing"][];
            values: number[];
        };
        /** Reasoning */
        Reasoning: {
            /** Effort */
            effort?: ("none" | "minimal" | "low" | "medium" | "high" | "xhigh" | "max") | null;
        } & {
            [key: string]: unknown;
        };
        /**
         * RegistryModel
         * @description A model with public SAEs.
         */
        RegistryModel: {
            id: string;
            layers: number[];
            parameters: number | null;
            saes: number;
            sites: ("attn_out" | "embed" | "hook_z" | "mlp_out" | "resid_mid" | "resid_post" | "resid_pre" | "transcoder")[];
            widths: number[];
        };
        /**
         * RegistryPage
         * @description A page of search results.
         */
        RegistryPage: {
            saes: components["schemas"]["RegistrySae"][];
            total: number;
        };
        /**
         * RegistrySae
         * @description A public SAE; None for what the catalogue does not state.
         */
        RegistrySae: {
            format: string;
            hook_point: string | null;
            id: string;
            l0: number | null;
            layer: number | null;
            model: string | null;
            neuronpedia: string | null;
            path: string;
            releases: string[];
            repository: string;
            /** @enum {unknown} */
            site: "attn_out" | "embed" | "hook_z" | "mlp_out" | "resid_mid" | "resid_post" | "resid_pre" | "transcoder";
            /** @enum {unknown} */
            support: "converted" | "no" | "read";
            width: number | null;
        };
        /**
         * RemoteModel
         * @description A hit of Hugging Face's model search.
         */
        RemoteModel: {
            downloads: number;
            gated: boolean;
            id: string;
            known_saes: number;
            likes: number;
            parameters: number | null;
        };
        /** Rename */
        Rename: {
            /**
             * Name
             * @description 1 to 128 characters of any script, without slashes.
             */
            name: string;
        };
        /**
         * RequestDetail
         * @description A finished request with its watched activations.
         *
         *         Texts are null where `MILLM_HISTORY_TEXTS` excludes them, or where the history was full.
         */
        RequestDetail: {
            activations: components["schemas"]["TrackedToken"][];
            answers: string[] | null;
            body: string | null;
            prompts: string[] | null;
            request: components["schemas"]["RequestRecord"];
        };
        /**
         * RequestEnded
         * @description A request was answered, failed or was cancelled.
         */
        RequestEnded: {
            request: components["schemas"]["RequestRecord"];
            /** @enum {unknown} */
            type: "request";
        };
        /**
         * RequestRecord
         * @description One request: what was decided before it ran, and what came of it. `monitoring.recorder` fills it in.
         */
        RequestRecord: {
            began: number;
            /** @default 0 */
            cached_tokens: number;
            choices: number;
            client: string;
            /** @default 0 */
            completion_tokens: number;
            /** @default null */
            degraded: string | null;
            /** @default 0 */
            delta_norm_ratio: number;
            /** @default null */
            end: ("cancelled" | "embedded" | "failed" | "length" | "stop" | "tool_calls") | null;
            endpoint: string;
            /** @default null */
            error: string | null;
            /** @default null */
            first_token_seconds: number | null;
            id: string;
            /** @default false */
            is_cut: boolean;
            model: string;
            profile: string | null;
            prompt_tokens: number;
            /** @default 0 */
            seconds: number;
            /** @default null */
            steering: string | null;
            streamed: boolean;
            task: string | null;
            /** @default 0 */
            tokens_steered: number;
            /** @default [] */
            watched: components["schemas"]["WatchedSae"][];
        };
        /** ResponseFormat */
        ResponseFormat: {
            json_schema?: components["schemas"]["JsonSchema"] | null;
            /**
             * Type
             * @enum {string}
             */
            type: "text" | "json_object" | "json_schema";
        } & {
            [key: string]: unknown;
        };
        /** ResponsesRequest */
        ResponsesRequest: {
            /**
             * Activations
             * @description What to report of which tokens; a list for several SAEs.
             */
            activations?: components["schemas"]["ActivationsRequest"] | components["schemas"]["ActivationsRequest"][] | null;
            /**
             * Frequency Penalty
             * @default 0
             */
            frequency_penalty?: number;
            /**
             * Ignore Eos
             * @description The model's own end tokens do not end the answer.
             * @default false
             */
            ignore_eos?: boolean;
            /**
             * Include
             * @description `message.output_text.logprobs` is honoured.
             */
            include?: string[];
            /**
             * Input
             * @description A question, or the full conversation as messages, function calls and their outputs.
             */
            input: string | {
                [key: string]: unknown;
            }[];
            /**
             * Instructions
             * @description A system message before all others.
             */
            instructions?: string | null;
            /** Logit Bias */
            logit_bias?: {
                [key: string]: number;
            };
            /** Max Output Tokens */
            max_output_tokens?: number | null;
            /**
             * Max Tool Calls
             * @description Echoed: it limits tools that run on a server.
             */
            max_tool_calls?: number | null;
            /**
             * Metadata
             * @description Echoed.
             */
            metadata?: {
                [key: string]: string;
            };
            /**
             * Min P
             * @default 0
             */
            min_p?: number;
            /**
             * Min Tokens
             * @description No token ends the answer before so many.
             * @default 0
             */
            min_tokens?: number;
            /**
             * Model
             * @description `<model>` or `<model>:<profile>`.
             */
            model: string;
            /**
             * N
             * @description A response has one answer.
             * @default 1
             * @constant
             */
            n?: 1;
            /**
             * Parallel Tool Calls
             * @description Several calls in one answer. Default: with `auto` yes, with `required` no.
             */
            parallel_tool_calls?: boolean | null;
            /**
             * Presence Penalty
             * @default 0
             */
            presence_penalty?: number;
            /**
             * Profile
             * @description Name of the steering profile to apply.
             */
            profile?: string | null;
            /**
             * Prompt Cache Key
             * @description Echoed.
             */
            prompt_cache_key?: string | null;
            /**
             * @description `effort`: for templates that read it.
             * @default {}
             */
            reasoning?: components["schemas"]["Reasoning"];
            /**
             * Repetition Penalty
             * @description Divides the logits of tokens that were seen, in prompt and answer.
             * @default 1
             */
            repetition_penalty?: number;
            /**
             * Safety Identifier
             * @description Echoed.
             */
            safety_identifier?: string | null;
            /** Seed */
            seed?: number | null;
            /** @description A steering; null or {} is the base model. */
            steering?: components["schemas"]["SteeringRequest"] | null;
            /** Stop */
            stop?: string[];
            /**
             * Stop Token Ids
             * @description Tokens that end the answer as well.
             */
            stop_token_ids?: number[];
            /**
             * Stream
             * @default false
             */
            stream?: boolean;
            /**
             * @default {
             *       "include_usage": false
             *     }
             */
            stream_options?: components["schemas"]["StreamOptions"];
            /**
             * Temperature
             * @default 1
             */
            temperature?: number;
            /**
             * @description `format`: `text`, `json_object` or `json_schema`.
             * @default {
             *       "format": {
             *         "type": "text"
             *       },
             *       "verbosity": "medium"
             *     }
             */
            text?: components["schemas"]["TextConfig"];
            /**
             * Tool Choice
             * @description `auto`, `none`, `required`, a function, or `allowed_tools`.
             * @default auto
             */
            tool_choice?: unknown;
            /**
             * Tools
             * @description Functions that may be called.
             */
            tools?: components["schemas"]["FunctionTool"][];
            /**
             * Top K
             * @description 0 or -1: all tokens.
             * @default 0
             */
            top_k?: number;
            /** Top Logprobs */
            top_logprobs?: number | null;
            /**
             * Top P
             * @default 1
             */
            top_p?: number;
            /**
             * Truncation
             * @description Echoed: nothing is truncated; a conversation that is too long is rejected.
             * @default disabled
             * @enum {string}
             */
            truncation?: "auto" | "disabled";
            /**
             * User
             * @description Echoed.
             */
            user?: string | null;
        } & {
            [key: string]: unknown;
        };
        /**
         * SaeEntry
         * @description An SAE in the library.
         */
        SaeEntry: {
            /** @default null */
            architecture: string | null;
            /** @default null */
            commit: string | null;
            /** @default null */
            d_in: number | null;
            /** @default null */
            format: string | null;
            /** @default null */
            hook_point: string | null;
            id: string;
            /** @default false */
            is_attached: boolean;
            /** @default false */
            is_verified: boolean;
            /** @default null */
            layer: number | null;
            /** @default null */
            model: string | null;
            /** @default null */
            neuronpedia: string | null;
            /** @enum {unknown} */
            origin: "builtin" | "hub" | "imported";
            /** @default null */
            problem: string | null;
            size: number;
            /** @enum {unknown} */
            state: "damaged" | "incomplete" | "whole";
            /** @default null */
            width: number | null;
        };
        /**
         * SaeFacts
         * @description Properties of an attached SAE.
         */
        SaeFacts: {
            architecture: string;
            exclude_special_tokens: boolean;
            features: number;
            hook_point: string;
            /** @default  */
            id: string;
            l0: number;
            layer: number;
            /** @default 0 */
            memory: number;
            residual_norm: number;
            sae: string;
            /** @default 1 */
            sample_every: number;
            sha256: string;
            steerable: boolean;
            variance_explained: number | null;
            warnings: string[];
        };
        /**
         * SaeReference
         * @description An SAE that a profile steers. Stated properties must match the attached SAE; omitted ones match any.
         */
        SaeReference: {
            /**
             * Hook Point
             * @description As SAELens names it: `blocks.20.hook_resid_post`.
             */
            hook_point?: string | null;
            /** Layer */
            layer?: number | null;
            /**
             * Name
             * @description What `features` call it; default: its `repo_id`.
             */
            name?: string | null;
            /**
             * Path
             * @description Folder or file inside the repository.
             */
            path?: string | null;
            /**
             * Reference Norm
             * @description The residual norm there, for `unit: norm`.
             */
            reference_norm?: number | null;
            /**
             * Repo Id
             * @description A Hugging Face id.
             */
            repo_id?: string | null;
            /** Revision */
            revision?: string | null;
            /**
             * Sha256
             * @description Of its weights.
             */
            sha256?: string | null;
            /**
             * Width
             * @description Features in its dictionary.
             */
            width?: number | null;
        };
        /**
         * Save
         * @description A name and further fields for the active steering.
         */
        Save: {
            /**
             * Description
             * @default
             */
            description?: string;
            /** Example Prompts */
            example_prompts?: string[];
            /**
             * Name
             * @description 1 to 128 characters of any script, without slashes.
             */
            name: string;
            /**
             * Overwrite
             * @description A profile that has the name already.
             * @default false
             */
            overwrite?: boolean;
            /** Tags */
            tags?: string[];
            /** Watch */
            watch?: components["schemas"]["WatchedFeature"][];
        };
        /**
         * ScaleMeans
         * @description The means of one multiple over the seeds.
         */
        ScaleMeans: {
            answers: number;
            kl: number | null;
            perplexity: number | null;
            repetition: number;
            scale: number | null;
            tokens: number;
        };
        /**
         * Separator
         * @description A feature that separates the texts.
         */
        Separator: {
            auc: number;
            index: number;
            label: string | null;
            max: number;
            mean_a: number;
            mean_b: number;
            score: number;
        };
        /**
         * Separators
         * @description The features that separate two sets of texts, the clearest first.
         */
        Separators: {
            more_in_a: components["schemas"]["Separator"][];
            more_in_b: components["schemas"]["Separator"][];
            profile: Record<string, never> | null;
            sae: string;
        };
        /** ServerStatus */
        ServerStatus: {
            cause: components["schemas"]["Cause"] | null;
            changing: components["schemas"]["ChangeInProgress"] | null;
            degraded: string | null;
            in_flight: number;
            model: components["schemas"]["ModelStatus"] | null;
            /** @default null */
            notice: string | null;
            platform: components["schemas"]["Platform"] | null;
            running: number;
            saes: components["schemas"]["SaeFacts"][];
            status: string;
            steering: components["schemas"]["SteeringStatus"] | null;
            version: string;
            waiting: number;
        };
        /**
         * Setting
         * @description A setting and its value, fixed until the server restarts.
         */
        Setting: {
            default: string | null;
            is_kept_back: boolean;
            meaning: string;
            name: string;
            /** @enum {unknown} */
            origin: "command line" | "default" | "environment" | "file .env";
            value: string | null;
            variable: string;
        };
        /**
         * Statistics
         * @description Statistics of the matching requests, per feature watched by name.
         */
        Statistics: {
            edges: number[];
            features: components["schemas"]["FeatureStatistics"][];
            requests: number;
        };
        /**
         * StatusChanged
         * @description A model was loaded or unloaded, an SAE attached or detached, or the server is degraded.
         */
        StatusChanged: {
            /** @default null */
            cause: string | null;
            degraded: string | null;
            model: string | null;
            saes: string[];
            status: string;
            /** @enum {unknown} */
            type: "status";
        };
        /**
         * SteeredFeature
         * @description One feature of the active steering.
         */
        SteeredFeature: {
            color: string | null;
            index: number;
            is_heard: boolean;
            label: string | null;
            max_act: number | null;
            mode: string;
            muted: boolean;
            norm: number | null;
            raw: number | null;
            sae: string;
            solo: boolean;
            strength: number;
            unit: string;
        };
        /**
         * SteeredHook
         * @description The sum of the effective features at one hook point.
         */
        SteeredHook: {
            delta_norm: number | null;
            delta_share: number | null;
            hook_point: string;
            residual_norm: number;
            sae: string;
            varies: boolean;
        };
        /**
         * SteeringBody
         * @description A steering as in a request's body, or the name of a profile.
         */
        SteeringBody: {
            /**
             * Features
             * @default []
             */
            features?: components["schemas"]["ProfileFeature"][];
            /**
             * Positions
             * @default all
             * @enum {string}
             */
            positions?: "all" | "prompt" | "generated";
            /**
             * Profile
             * @description Name of a profile, instead of all else.
             */
            profile?: string | null;
            /** Reference Norm */
            reference_norm?: number | null;
            /** Skip */
            skip?: ("bos" | "special" | "none") | null;
            /**
             * Skip Constrained
             * @description No steering while a JSON schema or a forced tool call decides the tokens.
             * @default false
             */
            skip_constrained?: boolean;
            /**
             * Version
             * @description Refuse with 409 `steering_outdated` unless it is still this version.
             */
            version?: number | null;
        };
        /**
         * SteeringCalibration
         * @description A suggestion, not applied.
         */
        SteeringCalibration: {
            guard: components["schemas"]["GuardLimits"];
            model: string;
            note: string;
            points: components["schemas"]["ScaleMeans"][];
            scale: number | null;
            strengths: components["schemas"]["Strength"][];
        };
        /**
         * SteeringChange
         * @description A partial change of the steering, applied completely or not at all.
         */
        SteeringChange: {
            /**
             * Features
             * @default []
             */
            features?: components["schemas"]["FeatureChange"][];
            /**
             * On
             * @description The master switch.
             */
            on?: boolean | null;
            /** Positions */
            positions?: ("all" | "prompt" | "generated") | null;
            /**
             * Remove
             * @default []
             */
            remove?: components["schemas"]["FeatureRef"][];
            /** Skip */
            skip?: ("bos" | "special" | "none") | null;
            /** Skip Constrained */
            skip_constrained?: boolean | null;
            /**
             * Version
             * @description Refuse with 409 `steering_outdated` unless it is still this version.
             */
            version?: number | null;
        };
        /**
         * SteeringChanged
         * @description The active steering has changed.
         */
        SteeringChanged: {
            fingerprint: string | null;
            profile: string | null;
            /** @enum {unknown} */
            type: "steering";
            version: number;
        };
        /**
         * SteeringRequest
         * @description `steering` in a request's body, and the core of a profile.
         */
        SteeringRequest: {
            /**
             * Features
             * @default []
             */
            features?: components["schemas"]["ProfileFeature"][];
            /**
             * Positions
             * @default all
             * @enum {string}
             */
            positions?: "all" | "prompt" | "generated";
            /** Reference Norm */
            reference_norm?: number | null;
            /** Skip */
            skip?: ("bos" | "special" | "none") | null;
            /**
             * Skip Constrained
             * @description No steering while a JSON schema or a forced tool call decides the tokens.
             * @default false
             */
            skip_constrained?: boolean;
        };
        /**
         * SteeringState
         * @description The active steering, applied to every request that names none.
         */
        SteeringState: {
            /** @default [] */
            features: components["schemas"]["SteeredFeature"][];
            fingerprint: string | null;
            /** @default [] */
            hooks: components["schemas"]["SteeredHook"][];
            is_modified: boolean;
            on: boolean;
            profile: string | null;
            /** @default 0 */
            redo: number;
            steering: Record<string, never> | null;
            /** @default 0 */
            undo: number;
            version: number;
            /** @default [] */
            warnings: string[];
        };
        /** SteeringStatus */
        SteeringStatus: {
            fingerprint: string | null;
            /** @default false */
            is_modified: boolean;
            /** @default true */
            on: boolean;
            profile: string | null;
        };
        /** StreamOptions */
        StreamOptions: {
            /**
             * Include Usage
             * @default false
             */
            include_usage?: boolean;
        } & {
            [key: string]: unknown;
        };
        /**
         * Strength
         * @description A feature at the suggested multiple.
         */
        Strength: {
            index: number;
            mode: string;
            sae: string | null;
            strength: number;
            unit: string;
        };
        /**
         * Strengths
         * @description Starting strengths in residual units: unit `raw`, mode `add`.
         */
        Strengths: {
            half_max_act: number | null;
            half_norm: number;
        };
        /** SweepRequest */
        SweepRequest: {
            /**
             * Activations
             * @description What to report of which tokens; a list for several SAEs.
             */
            activations?: components["schemas"]["ActivationsRequest"] | components["schemas"]["ActivationsRequest"][] | null;
            /**
             * Frequency Penalty
             * @default 0
             */
            frequency_penalty?: number;
            /**
             * Ignore Eos
             * @description The model's own end tokens do not end the answer.
             * @default false
             */
            ignore_eos?: boolean;
            /** Logit Bias */
            logit_bias?: {
                [key: string]: number;
            };
            /**
             * Max Tokens
             * @default 64
             */
            max_tokens?: number;
            /** Messages */
            messages?: components["schemas"]["ChatMessage"][];
            /**
             * Min P
             * @default 0
             */
            min_p?: number;
            /**
             * Min Tokens
             * @description No token ends the answer before so many.
             * @default 0
             */
            min_tokens?: number;
            /**
             * Model
             * @description `<model>` or `<model>:<profile>`; default: the model that is loaded.
             * @default
             */
            model?: string;
            /**
             * N
             * @default 1
             */
            n?: number;
            /**
             * Presence Penalty
             * @default 0
             */
            presence_penalty?: number;
            /**
             * Profile
             * @description Name of the steering profile to apply.
             */
            profile?: string | null;
            /**
             * Prompt
             * @description Instead of `messages`: a text to complete, without a template.
             */
            prompt?: string | null;
            /**
             * Repetition Penalty
             * @description Divides the logits of tokens that were seen, in prompt and answer.
             * @default 1
             */
            repetition_penalty?: number;
            /**
             * Scales
             * @description What all strengths are multiplied with; 0: the base model.
             */
            scales: number[];
            /** Seed */
            seed?: number | null;
            /**
             * Seeds
             * @description One answer each.
             */
            seeds?: number[];
            /** @description A steering; null or {} is the base model. */
            steering?: components["schemas"]["SteeringRequest"] | null;
            /** Stop */
            stop?: string[];
            /**
             * Stop Token Ids
             * @description Tokens that end the answer as well.
             */
            stop_token_ids?: number[];
            /**
             * Stream
             * @description False: one JSON object, when all is measured.
             * @default true
             */
            stream?: boolean;
            /**
             * @default {
             *       "include_usage": false
             *     }
             */
            stream_options?: components["schemas"]["StreamOptions"];
            /**
             * System Prompt
             * @description Also answer with the base model and this in front of `messages`.
             */
            system_prompt?: string | null;
            /**
             * Temperature
             * @default 0.7
             */
            temperature?: number;
            /**
             * Top K
             * @description 0 or -1: all tokens.
             * @default 0
             */
            top_k?: number;
            /**
             * Top P
             * @default 1
             */
            top_p?: number;
        };
        /**
         * SweepResult
         * @description A sweep, complete.
         */
        SweepResult: {
            model: string;
            points: components["schemas"]["MeasuredAnswer"][];
            prompt_tokens: number;
            summary: components["schemas"]["ScaleMeans"][];
            system_prompt_tokens?: number;
        };
        /** TextConfig */
        TextConfig: {
            /**
             * @default {
             *       "type": "text"
             *     }
             */
            format?: components["schemas"]["TextFormat"];
            /**
             * Verbosity
             * @default medium
             * @enum {string}
             */
            verbosity?: "low" | "medium" | "high";
        } & {
            [key: string]: unknown;
        };
        /** TextFormat */
        TextFormat: {
            /** Description */
            description?: string | null;
            /** Name */
            name?: string | null;
            /** Schema */
            schema?: unknown;
            /** Strict */
            strict?: boolean | null;
            /**
             * Type
             * @default text
             * @enum {string}
             */
            type?: "text" | "json_object" | "json_schema";
        } & {
            [key: string]: unknown;
        };
        /** Tool */
        Tool: {
            function: components["schemas"]["OfferedFunction"];
            /**
             * Type
             * @constant
             */
            type: "function";
        } & {
            [key: string]: unknown;
        };
        /** ToolCall */
        ToolCall: {
            function: components["schemas"]["CalledFunction"];
            /** Id */
            id?: string | null;
        } & {
            [key: string]: unknown;
        };
        /**
         * TrackedToken
         * @description Activations of one SAE at one token of a request.
         */
        TrackedToken: {
            after?: number[];
            features: number[];
            generated: boolean;
            index: number;
            position: number;
            sae: string;
            token: string | null;
            top?: [
                number,
                number
            ][];
            top_after?: [
                number,
                number
            ][];
            values: number[];
        };
        /**
         * UnresolvedReference
         * @description An id that must be resolved, or an SAE that must be attached, before an entry can be imported.
         */
        UnresolvedReference: {
            id: string;
            /** @enum {unknown} */
            kind: "feature" | "sae" | "vector";
            path: string;
            reason: string;
        };
        /** Usage */
        Usage: {
            completion_tokens: number;
            /**
             * @default {
             *       "reasoning_tokens": 0
             *     }
             */
            completion_tokens_details: components["schemas"]["CompletionDetails"];
            prompt_tokens: number;
            /**
             * @default {
             *       "cached_tokens": 0
             *     }
             */
            prompt_tokens_details: components["schemas"]["PromptDetails"];
            total_tokens: number;
        };
        /** VersionBody */
        VersionBody: {
            /**
             * Version
             * @description Refuse with 409 `steering_outdated` unless it is still this version.
             */
            version?: number | null;
        };
        /**
         * WatchState
         * @description The watch of one SAE.
         */
        WatchState: {
            active: boolean;
            /** @default [] */
            features: number[];
            sae: string;
            /** @default null */
            sample_every: number | null;
            /**
             * @default generated
             * @enum {unknown}
             */
            tokens: "all" | "generated" | "prompt";
            /** @default 0 */
            top_k: number;
            /**
             * @default before
             * @enum {unknown}
             */
            when: "after" | "before" | "both";
        };
        /**
         * WatchedFeature
         * @description A feature to watch while the profile is in use.
         */
        WatchedFeature: {
            /**
             * Index
             * @description Feature index in the SAE's dictionary.
             */
            index: number;
            /** Label */
            label?: string | null;
            /**
             * Sae
             * @description As in `features`.
             */
            sae?: string | null;
        };
        /**
         * WatchedSae
         * @description Recorded activations of one SAE in one request.
         */
        WatchedSae: {
            features: number[];
            sae: string;
            tokens: number;
            top_k: number;
        };
    };
    responses: never;
    parameters: never;
    requestBodies: never;
    headers: never;
    pathItems: never;
}
export type $defs = Record<string, never>;
export interface operations {
    list_attachments_api_attachments_get: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Properties of an attached SAE. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": {
                        attachments: components["schemas"]["SaeFacts"][];
                    };
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    attach_api_attachments_post: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["Attach"];
            };
        };
        responses: {
            /** @description Properties of an attached SAE. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["SaeFacts"];
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    detach_api_attachments__sae__delete: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                sae: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description ServerStatus. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ServerStatus"];
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    post_calibrate_api_calibrate_post: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["CalibrateRequest"];
            };
        };
        responses: {
            /** @description A suggestion, not applied. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["SteeringCalibration"];
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    post_compare_api_compare_post: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["CompareRequest"];
            };
        };
        responses: {
            /** @description A comparison, complete. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Comparison"];
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    contrast_texts_api_features_contrast_post: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["ContrastBody"];
            };
        };
        responses: {
            /** @description The features that separate two sets of texts, the clearest first. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Separators"];
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    inspect_text_api_features_inspect_post: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["InspectBody"];
            };
        };
        responses: {
            /** @description The features that fire on a text. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Inspection"];
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    get_labels_api_features_labels_get: {
        parameters: {
            query?: {
                /** @description Default: the only SAE that is attached. */
                sae?: string | null;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description The file. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": unknown;
                    "application/jsonl": unknown;
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    post_labels_api_features_labels_post: {
        parameters: {
            query?: {
                /** @description Default: the only SAE that is attached. */
                sae?: string | null;
                /** @description Of the lines that name none. */
                source?: string;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description The result of a label import. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["PutLabels"];
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    search_features_api_features_search_get: {
        parameters: {
            query?: {
                /** @description Words, or a number; empty: all labels. */
                q?: string;
                /** @description Default: every SAE that is attached. */
                sae?: string | null;
                limit?: number;
                offset?: number;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description A page of the features with matching labels. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["FoundLabels"];
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    get_feature_api_features__index__get: {
        parameters: {
            query?: {
                /** @description Default: the only SAE that is attached. */
                sae?: string | null;
            };
            header?: never;
            path: {
                index: number;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description All that is known about one feature. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["FeatureCard"];
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    put_label_api_features__index__label_put: {
        parameters: {
            query?: {
                /** @description Default: the only SAE that is attached. */
                sae?: string | null;
            };
            header?: never;
            path: {
                index: number;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["LabelBody"];
            };
        };
        responses: {
            /** @description A feature with a matching label. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["FoundLabel"];
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    delete_label_api_features__index__label_delete: {
        parameters: {
            query?: {
                /** @description Default: the only SAE that is attached. */
                sae?: string | null;
            };
            header?: never;
            path: {
                index: number;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description A feature with a matching label. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["FoundLabel"];
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    get_hardware_api_hardware_get: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Hardware. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Hardware"];
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    list_jobs_api_jobs_get: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description A download from `queued` to `installed`. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": {
                        jobs: components["schemas"]["DownloadJob"][];
                    };
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    get_job_api_jobs__id__get: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description A download from `queued` to `installed`. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["DownloadJob"];
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    cancel_job_api_jobs__id__cancel_post: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description A download from `queued` to `installed`. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["DownloadJob"];
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    resume_job_api_jobs__id__resume_post: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description A download from `queued` to `installed`. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["DownloadJob"];
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    get_logs_api_logs_get: {
        parameters: {
            query?: {
                /** @description The least severe that is shown. */
                level?: "debug" | "info" | "warning" | "error";
                limit?: number;
                /** @description The number of a line: only what came after it. */
                after?: number | null;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description LogEntry. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": {
                        lines: components["schemas"]["LogEntry"][];
                    };
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    list_models_api_models_get: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description A model in the library. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": {
                        models: components["schemas"]["ModelEntry"][];
                    };
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    download_model_api_models_post: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["Download"];
            };
        };
        responses: {
            /** @description A download from `queued` to `installed`. */
            202: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["DownloadJob"];
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    cancel_api_models_cancel_post: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description ServerStatus. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ServerStatus"];
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    estimate_api_models_estimate_post: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["EstimateBody"];
            };
        };
        responses: {
            /** @description Bytes on the device, part by part; None where the files do not state it. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Estimate"];
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    load_api_models_load_post: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["Load"];
            };
        };
        responses: {
            /** @description ServerStatus. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ServerStatus"];
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    preview_model_api_models_preview_post: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["Download"];
            };
        };
        responses: {
            /** @description What a download would fetch. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["DownloadPreview"];
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    search_models_api_models_search_post: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["HubSearch"];
            };
        };
        responses: {
            /** @description A hit of Hugging Face's model search. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": {
                        models: components["schemas"]["RemoteModel"][];
                    };
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    unload_api_models_unload_post: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description ServerStatus. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ServerStatus"];
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    get_model_api_models__id__get: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description A model in the library. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ModelEntry"];
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    delete_model_api_models__id__delete: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description The bytes that a deletion freed. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["DeletionResult"];
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    get_monitor_api_monitor_get: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description The watch configuration of new requests, and the size of the history. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["MonitorState"];
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    put_monitor_api_monitor_put: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["MonitorBody"];
            };
        };
        responses: {
            /** @description The watch configuration of new requests, and the size of the history. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["MonitorState"];
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    export_api_monitor_export_get: {
        parameters: {
            query: {
                /** @description A line per token, or a row per feature of it. */
                format: "jsonl" | "csv";
                client?: string | null;
                /** @description Empty: those without one. */
                profile?: string | null;
                /** @description Empty: those of no task. */
                task?: string | null;
                /** @description Such as `/v1/chat/completions`. */
                endpoint?: string | null;
                /** @description Some of it was watched. */
                sae?: string | null;
                /** @description Watched by name, or among the most active. */
                feature?: number | null;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description The file. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": unknown;
                    "application/x-ndjson": unknown;
                    "text/csv": unknown;
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    get_statistics_api_monitor_statistics_get: {
        parameters: {
            query?: {
                client?: string | null;
                /** @description Empty: those without one. */
                profile?: string | null;
                /** @description Empty: those of no task. */
                task?: string | null;
                /** @description Such as `/v1/chat/completions`. */
                endpoint?: string | null;
                /** @description Some of it was watched. */
                sae?: string | null;
                /** @description Watched by name, or among the most active. */
                feature?: number | null;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Statistics of the matching requests, per feature watched by name. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Statistics"];
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    list_profiles_api_profiles_get: {
        parameters: {
            query?: {
                /** @description Found in the name, the description or a tag. */
                search?: string;
                limit?: number;
                offset?: number;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description A page of the list, sorted by name. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ProfilePage"];
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    add_profile_api_profiles_post: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["Profile"];
            };
        };
        responses: {
            /** @description One profile of the list, without its features. */
            201: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ProfileEntry"];
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    deactivate_api_profiles_deactivate_post: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description ServerStatus. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ServerStatus"];
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    import_document_api_profiles_import_post: {
        parameters: {
            query?: {
                /** @description `<foreign id>=<our id>`: the library id of a foreign SAE; repeatable. */
                sae?: string[];
                /** @description JSON path of an entry; repeatable. */
                only?: string[];
                /** @description Name, for the only entry. */
                as?: string | null;
                on_conflict?: "refuse" | "rename" | "replace" | "skip";
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/octet-stream": string;
            };
        };
        responses: {
            /** @description The results of an import. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ImportResponse"];
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    preview_import_api_profiles_import_preview_post: {
        parameters: {
            query?: {
                /** @description `<foreign id>=<our id>`: the library id of a foreign SAE; repeatable. */
                sae?: string[];
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/octet-stream": string;
            };
        };
        responses: {
            /** @description The entries that an import would add. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ImportPreview"];
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    save_profile_api_profiles_save_post: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["Save"];
            };
        };
        responses: {
            /** @description One profile of the list, without its features. */
            201: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ProfileEntry"];
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    get_profile_api_profiles__name__get: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Of a profile, in any case. */
                name: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description One profile with all fields. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ProfileDetail"];
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    put_profile_api_profiles__name__put: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Of a profile, in any case. */
                name: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["Profile"];
            };
        };
        responses: {
            /** @description One profile of the list, without its features. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ProfileEntry"];
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    delete_profile_api_profiles__name__delete: {
        parameters: {
            query?: {
                /** @description Also the active one, which is turned off. */
                force?: boolean;
            };
            header?: never;
            path: {
                /** @description Of a profile, in any case. */
                name: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description One profile of the list, without its features. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ProfileEntry"];
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    activate_named_api_profiles__name__activate_post: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Of a profile, in any case. */
                name: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description One profile of the list, without its features. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ProfileEntry"];
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    duplicate_profile_api_profiles__name__duplicate_post: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Of a profile, in any case. */
                name: string;
            };
            cookie?: never;
        };
        requestBody?: {
            content: {
                "application/json": components["schemas"]["Duplicate"] | null;
            };
        };
        responses: {
            /** @description One profile of the list, without its features. */
            201: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ProfileEntry"];
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    export_profile_api_profiles__name__export_get: {
        parameters: {
            query?: {
                format?: "millm" | "adr" | "mistudio" | "neuronpedia" | "lm-eval" | "gguf";
                /** @description Override `skip` for the export: other tools skip other tokens than `bos`. */
                skip?: ("default" | "none" | "special") | null;
            };
            header?: never;
            path: {
                name: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description The file. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": unknown;
                    "application/octet-stream": unknown;
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    rename_profile_api_profiles__name__rename_post: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description Of a profile, in any case. */
                name: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["Rename"];
            };
        };
        responses: {
            /** @description One profile of the list, without its features. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ProfileEntry"];
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    list_queue_api_queue_get: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description One request: what was decided before it ran, and what came of it. `monitoring.recorder` fills it in. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": {
                        requests: components["schemas"]["RequestRecord"][];
                    };
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    cancel_request_api_queue__id__cancel_post: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description One request: what was decided before it ran, and what came of it. `monitoring.recorder` fills it in. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["RequestRecord"];
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    list_shelf_api_registry_models_get: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description A model with public SAEs. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": {
                        models: components["schemas"]["RegistryModel"][];
                    };
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    search_saes_api_registry_saes_get: {
        parameters: {
            query?: {
                model?: string | null;
                layer?: number | null;
                site?: ("resid_pre" | "resid_mid" | "resid_post" | "attn_out" | "mlp_out" | "hook_z" | "transcoder" | "embed") | null;
                /** @description Features. */
                width?: number | null;
                /** @description Features that are active at a token, at most. */
                most_l0?: number | null;
                /** @description Found in the id or the release. */
                text?: string;
                limit?: number;
                offset?: number;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description A page of search results. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["RegistryPage"];
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    list_requests_api_requests_get: {
        parameters: {
            query?: {
                limit?: number;
                /** @description A request's id: only older ones. */
                before?: string | null;
                client?: string | null;
                /** @description Empty: those without one. */
                profile?: string | null;
                /** @description Empty: those of no task. */
                task?: string | null;
                /** @description Such as `/v1/chat/completions`. */
                endpoint?: string | null;
                /** @description Some of it was watched. */
                sae?: string | null;
                /** @description Watched by name, or among the most active. */
                feature?: number | null;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description One request: what was decided before it ran, and what came of it. `monitoring.recorder` fills it in. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": {
                        requests: components["schemas"]["RequestRecord"][];
                    };
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    delete_requests_api_requests_delete: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description The number of deleted requests. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["DeletedRequests"];
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    get_request_api_requests__id__get: {
        parameters: {
            query?: {
                client?: string | null;
                /** @description Empty: those without one. */
                profile?: string | null;
                /** @description Empty: those of no task. */
                task?: string | null;
                /** @description Such as `/v1/chat/completions`. */
                endpoint?: string | null;
                /** @description Some of it was watched. */
                sae?: string | null;
                /** @description Watched by name, or among the most active. */
                feature?: number | null;
            };
            header?: never;
            path: {
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description A finished request with its watched activations. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["RequestDetail"];
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    delete_request_api_requests__id__delete: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description The number of deleted requests. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["DeletedRequests"];
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    list_saes_api_saes_get: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description An SAE in the library. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": {
                        saes: components["schemas"]["SaeEntry"][];
                    };
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    download_sae_api_saes_post: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["Download"];
            };
        };
        responses: {
            /** @description A download from `queued` to `installed`. */
            202: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["DownloadJob"];
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    preview_sae_api_saes_preview_post: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["Download"];
            };
        };
        responses: {
            /** @description What a download would fetch. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["DownloadPreview"];
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    get_sae_api_saes__id__get: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description An SAE in the library. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["SaeEntry"];
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    delete_sae_api_saes__id__delete: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description The bytes that a deletion freed. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["DeletionResult"];
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    get_settings_api_settings_get: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description A setting and its value, fixed until the server restarts. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": {
                        settings: components["schemas"]["Setting"][];
                    };
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    get_status_api_status_get: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description ServerStatus. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ServerStatus"];
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    get_steering_api_steering_get: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description The active steering, applied to every request that names none. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["SteeringState"];
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    put_steering_api_steering_put: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: {
            content: {
                "application/json": components["schemas"]["SteeringBody"] | null;
            };
        };
        responses: {
            /** @description The active steering, applied to every request that names none. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["SteeringState"];
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    patch_steering_api_steering_patch: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["SteeringChange"];
            };
        };
        responses: {
            /** @description The active steering, applied to every request that names none. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["SteeringState"];
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    redo_steering_api_steering_redo_post: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: {
            content: {
                "application/json": components["schemas"]["VersionBody"] | null;
            };
        };
        responses: {
            /** @description The active steering, applied to every request that names none. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["SteeringState"];
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    undo_steering_api_steering_undo_post: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: {
            content: {
                "application/json": components["schemas"]["VersionBody"] | null;
            };
        };
        responses: {
            /** @description The active steering, applied to every request that names none. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["SteeringState"];
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    post_sweep_api_sweep_post: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["SweepRequest"];
            };
        };
        responses: {
            /** @description A sweep, complete. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["SweepResult"];
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    issue_ticket_api_ws_ticket_post: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": unknown;
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    chat_completions_v1_chat_completions_post: {
        parameters: {
            query?: never;
            header?: {
                /** @description For clients that can only set headers; percent-encoded where it is not ASCII. */
                "x-millm-profile"?: string | null;
            };
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["ChatRequest"];
            };
        };
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": unknown;
                    "text/event-stream": string;
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    completions_v1_completions_post: {
        parameters: {
            query?: never;
            header?: {
                /** @description For clients that can only set headers; percent-encoded where it is not ASCII. */
                "x-millm-profile"?: string | null;
            };
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["CompletionRequest"];
            };
        };
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": unknown;
                    "text/event-stream": string;
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    embeddings_v1_embeddings_post: {
        parameters: {
            query?: never;
            header?: {
                /** @description For clients that can only set headers; percent-encoded where it is not ASCII. */
                "x-millm-profile"?: string | null;
            };
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["EmbeddingRequest"];
            };
        };
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": unknown;
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    list_models_v1_models_get: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": {
                        [key: string]: unknown;
                    };
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    retrieve_model_v1_models__model__get: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                model: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": {
                        [key: string]: unknown;
                    };
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
    responses_v1_responses_post: {
        parameters: {
            query?: never;
            header?: {
                /** @description For clients that can only set headers; percent-encoded where it is not ASCII. */
                "x-millm-profile"?: string | null;
            };
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["ResponsesRequest"];
            };
        };
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": unknown;
                    "text/event-stream": string;
                };
            };
            /** @description Rejected; nothing has changed. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
            /** @description Failed, or not possible now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorAnswer"];
                };
            };
        };
    };
}
